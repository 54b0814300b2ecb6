"""Prefect automations for qcrd's runs and events: what a server does when something happens.

    qcrd run failed         a run of `distill` ended as failed or crashed
    qcrd run died           a run stopped sending heartbeats: its process is gone, so the run is set to crashed
    qcrd champion promoted  the gate moved the champion (`flows.prefect.verdict`)
    qcrd quality dropped    a challenger is worse than the champion, beyond doubt
    qcrd drift              the questions or the teacher's answers are not what they were
    qcrd proxy              a student comes closer to the teacher, but not to the truth

They are found by their names, so that each exists only once. Without a notification block an automation only leaves
its event (`prefect.automation.triggered`) in the server's feed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, DoNothing, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from flows.prefect.verdict import DROPPED, MODEL, PROMOTED
from storage.errors import UsageError
from tasks.errors import ServerRefused
from tasks.steps.drift import DATASET, DRIFT
from tasks.steps.proxy import PROXY, TRAINING

FLOW = "distill"
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = frozenset(f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled"))
# Jinja templates, filled in by the server.
RUN_BODY = "{{ flow_run.name }}: {{ flow_run.state.name }}. {{ flow_run.state.message }}\n{{ flow_run|ui_url }}"
REASON_BODY = "{{ event.payload.reason }}"

Outcome = Literal["created", "updated", "unchanged", "removed", "not there"]


@dataclass(frozen=True)
class Wanted:
    """An automation as it should be.

    Attributes:
        name, description: as the UI shows them.
        trigger: when.
        subject, body: of the notification; Jinja templates.
        action: what to do besides notifying; None for nothing.
        notifies: whether it sends a notification; the one that marks dead runs leaves that to "qcrd run failed".
    """

    name: str
    description: str
    trigger: EventTrigger
    subject: str
    body: str
    action: ActionTypes | None = None
    notifies: bool = True

    def automation(self, block: UUID | None, *, enabled: bool) -> AutomationCore:
        """As Prefect takes it."""
        actions = [self.action] if self.action else []
        if block is not None and self.notifies:
            actions.append(SendNotification(block_document_id=block, subject=self.subject, body=self.body))
        return AutomationCore(
            name=self.name,
            description=self.description,
            enabled=enabled,
            tags=["qcrd"],
            trigger=self.trigger,
            actions=actions or [DoNothing()],
            actions_on_trigger=[],
            actions_on_resolve=[],
        )


def wanted(silence: timedelta) -> list[Wanted]:
    """All automations.

    Args:
        silence: a run without a heartbeat for this long is dead; at least 10 s, and longer than between two heartbeats.
    """
    return [
        Wanted(
            "qcrd run failed",
            "A distillation ended as failed or crashed.",
            _of_runs({"prefect.flow-run.Failed", "prefect.flow-run.Crashed"}),
            "qcrd: {{ flow_run.name }} {{ flow_run.state.name|lower }}",
            RUN_BODY,
        ),
        Wanted(
            "qcrd run died",
            f"A distillation that sent no heartbeat for {silence.total_seconds():.0f} s is set to crashed.",
            _of_runs({HEARTBEAT, *ENDS}, after={HEARTBEAT}, posture=Posture.Proactive, within=silence),
            "qcrd: {{ flow_run.name }} died",
            RUN_BODY,
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                force=False,
                message=f"No heartbeat for {silence.total_seconds():.0f} s: the run's process is gone. `qcrd resume` "
                "goes on with it.",
            ),
            notifies=False,
        ),
        Wanted(
            "qcrd champion promoted",
            "The gate made another version the champion.",
            _of_events(PROMOTED, MODEL),
            "qcrd: {{ event.payload.model }} version {{ event.payload.champion }} is the champion",
            REASON_BODY,
        ),
        Wanted(
            "qcrd quality dropped",
            "A new version is worse than the champion, beyond doubt. The champion stays.",
            _of_events(DROPPED, MODEL),
            "qcrd: {{ event.payload.model }} version {{ event.payload.challenger }} is worse than the champion",
            REASON_BODY,
        ),
        Wanted(
            "qcrd drift",
            "The questions or the teacher's answers are not what they were.",
            _of_events(DRIFT, DATASET),
            "qcrd: drift in {{ event.resource.name }}",
            REASON_BODY,
        ),
        Wanted(
            "qcrd proxy",
            "A student comes closer to the teacher, but not to the truth: it may be learning its mistakes.",
            _of_events(PROXY, TRAINING),
            "qcrd: {{ event.resource.name }} may be learning the teacher's mistakes",
            REASON_BODY,
        ),
    ]


def _of_runs(events: set[str], **more: Any) -> EventTrigger:
    return EventTrigger(
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.role": "flow", "prefect.resource.name": FLOW},
        expect=events,
        for_each={"prefect.resource.id"},
        **({"posture": Posture.Reactive} | more),
    )


def _of_events(event: str, resource: str) -> EventTrigger:
    return EventTrigger(
        match={"prefect.resource.id": f"{resource}.*"},
        expect={event},
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
    )


def apply_automations(silence: timedelta, notify: str | None) -> dict[str, Outcome]:
    """Creates or updates the server's automations; one that somebody switched off stays off.

    Args:
        silence: see `wanted`.
        notify: a notification block as TYPE/NAME; None sends nothing.

    Returns:
        name -> what was done.

    Raises:
        UsageError: there is no such block, or it sends no notifications.
        ServerRefused: the server cannot be reached, or refused it.
    """
    done: dict[str, Outcome] = {}
    with _server() as client:
        block = _block(client, notify) if notify else None
        for one in wanted(silence):
            known = client.read_automations_by_name(one.name)
            if not known:
                client.create_automation(one.automation(block, enabled=True))
                done[one.name] = "created"
                continue
            for repeated in known[1:]:  # two processes may create one at the same moment
                client.delete_automation(repeated.id)
            new = one.automation(block, enabled=known[0].enabled)
            if _content(known[0]) == _content(new):
                done[one.name] = "unchanged"
            else:
                client.update_automation(known[0].id, new)
                done[one.name] = "updated"
    return done


def remove_automations() -> dict[str, Outcome]:
    """Removes the automations from the server; raises ServerRefused as `apply_automations` does."""
    done: dict[str, Outcome] = {}
    with _server() as client:
        for one in wanted(timedelta(minutes=5)):
            known = client.read_automations_by_name(one.name)
            for automation in known:
                client.delete_automation(automation.id)
            done[one.name] = "removed" if known else "not there"
    return done


def _content(automation: AutomationCore | Automation) -> dict[str, Any]:
    """An automation's content, in a form that can be compared; sets are sorted."""
    content: dict[str, Any] = AutomationCore.model_validate(automation.model_dump()).model_dump(
        mode="json", exclude={"owner_resource"}
    )
    for name in ("after", "expect", "for_each"):
        content["trigger"][name] = sorted(content["trigger"][name])
    return content


def _block(client: SyncPrefectClient, given: str) -> UUID:
    kind, _, name = given.partition("/")
    if not kind or not name or "/" in name:
        raise UsageError(f"--notify takes a block as TYPE/NAME, such as slack-webhook/team; got {given!r}.")
    try:
        found = client.read_block_document_by_name(name, kind)
    except ObjectNotFound:
        raise UsageError(
            f"Prefect's server has no block {given!r}. Make it in its UI under Blocks, or with Python: "
            f"`from prefect.blocks.notifications import SlackWebhook; SlackWebhook(url=...).save({name!r})`. "
            "`prefect block ls` lists those there are."
        ) from None
    if found.block_schema is None or "notify" not in found.block_schema.capabilities:
        raise UsageError(
            f"Block {given!r} sends no notifications; take one such as slack-webhook, email-server or custom-webhook."
        )
    return found.id


@contextmanager
def _server() -> Iterator[SyncPrefectClient]:
    """A client of the server, whose errors become one line each."""
    address = PREFECT_API_URL.value()
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.HTTPStatusError as error:
        said = " ".join(error.response.text.split())[:300]
        raise ServerRefused(f"Prefect at {address} refused it ({error.response.status_code}): {said}") from error
    except httpx.HTTPError as error:
        raise ServerRefused(
            f"No Prefect server answers at {address} ({type(error).__name__}). Start it, or correct PREFECT_API_URL."
        ) from error
