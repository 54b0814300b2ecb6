"""`qcrd automations` against a real Prefect server: what it makes, and that real events and a dead run set it off."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.system import Secret

from flows.prefect.automations import apply_automations, remove_automations
from flows.prefect.verdict import show_verdict
from storage.errors import UsageError
from storage.store import Store
from storage.votes import VoteRule
from tasks.questions.sets import DatasetConfig
from tasks.running.workspace import Workspace
from tasks.steps.drift import watch_drift
from tasks.steps.proxy import watch_proxy
from tasks.tracking.gate import judge
from tasks.tracking.registry import Registered
from tasks.watching.drift import DriftConfig
from tests.conftest import Qcrd, figures
from tests.drifting import LONG, OTHER, SAME, bring
from tests.flows.prefect_server import prefect_server
from tests.tasks.training.hacked import COPIED, hacked

pytestmark = pytest.mark.slow

NAMES = [
    "qcrd run failed",
    "qcrd run died",
    "qcrd champion promoted",
    "qcrd quality dropped",
    "qcrd drift",
    "qcrd proxy",
]
DYING_FLOW = """
import time
from prefect import flow

@flow(name="distill", flow_run_name="sums new qcrd")
def distill():
    time.sleep(600)

distill()
"""


@pytest.fixture(scope="module")
def server(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server's API; this process talks to it, too."""
    with prefect_server(prefect_database, tmp_path_factory.mktemp("prefect")) as api:
        yield api


@pytest.fixture
def heard() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The address of a webhook, and what it was sent."""
    received: list[dict[str, str]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as hook:
        thread = threading.Thread(target=hook.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{hook.server_address[1]}", received
        hook.shutdown()
        thread.join()


@pytest.fixture
def clean(server: str) -> Iterator[str]:
    """The server, without automations before and after."""
    remove_automations()
    yield server
    remove_automations()


def wait_for(found: Callable[[], Any], what: str, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.5)
    return result


def ask(api: str, path: str, body: dict[str, Any]) -> Any:
    return httpx.post(f"{api}/{path}", json=body).raise_for_status().json()


def automations(api: str) -> dict[str, dict[str, Any]]:
    found = ask(api, "automations/filter", {})
    assert len({one["name"] for one in found}) == len(found), "each is there only once"
    return {one["name"]: one for one in found}


def events(api: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(api, "events/filter", {"filter": {"event": {"name": [name]}}})["events"]
    return found


def triggered(api: str) -> list[str]:
    return [event["resource"]["prefect.resource.name"] for event in events(api, "prefect.automation.triggered")]


@flow(name="distill")
def gate_alone(rights: list[dict[str, bool]]) -> None:
    """The end of a distillation: the verdict on a challenger."""
    verdict = replace(judge(rights[0], rights[1]), against="1")
    show_verdict(Registered("qcrd-sums", "2", {}), replace(verdict, moved=verdict.promoted))


@flow(name="distill")
def watch_alone(workspace: Workspace, config: DatasetConfig) -> None:
    """The part of a distillation that compares what is new with what was new before."""
    watch_drift(workspace, VoteRule(dataset="svamp"), config, DriftConfig())


@flow(name="distill")
def proxy_alone(folder: Path) -> list[bool]:
    """The part of a distillation that compares agreement with the truth, for every round."""
    return [watch_proxy(folder, t) is not None for t in range(len(COPIED))]


def start_and_kill_a_flow(api: str) -> None:
    """A flow that has sent one heartbeat and is then killed."""
    with subprocess.Popen([sys.executable, "-c", DYING_FLOW], env=os.environ | {"PREFECT_API_URL": api}) as process:
        try:
            wait_for(lambda: any(named(event) for event in events(api, "prefect.flow-run.heartbeat")), "a heartbeat")
        finally:
            process.kill()


def named(event: dict[str, Any]) -> bool:
    return bool(event["resource"]["prefect.resource.name"] == "sums new qcrd")


def test_they_are_made_once_changed_and_removed(clean: str, qcrd: Qcrd) -> None:
    made = figures(qcrd("automations", "--json", PREFECT_API_URL=clean))
    assert made == dict.fromkeys(NAMES, "created")
    before = automations(clean)
    assert sorted(before) == sorted(NAMES)
    assert {one["actions"][0]["type"] for one in before.values()} == {"do-nothing", "change-flow-run-state"}

    assert apply_automations(timedelta(seconds=300), None) == dict.fromkeys(NAMES, "unchanged")
    assert automations(clean) == before

    switched_off = before["qcrd run died"]["id"]
    httpx.patch(f"{clean}/automations/{switched_off}", json={"enabled": False}).raise_for_status()
    assert apply_automations(timedelta(seconds=60), None)["qcrd run died"] == "updated"
    changed = automations(clean)["qcrd run died"]
    assert (changed["id"], changed["enabled"], changed["trigger"]["within"]) == (switched_off, False, 60.0)

    assert remove_automations() == dict.fromkeys(NAMES, "removed")
    assert remove_automations() == dict.fromkeys(NAMES, "not there")
    assert automations(clean) == {}


def test_a_promotion_notifies_and_a_drop_in_quality_is_told(
    clean: str, heard: tuple[str, list[dict[str, str]]]
) -> None:
    hook, received = heard
    told = {"subject": "{{subject}}", "body": "{{body}}"}
    block = CustomWebhookNotificationBlock.model_validate({"name": "team", "url": hook, "json_data": told})
    block.save("team", overwrite=True)
    apply_automations(timedelta(seconds=300), "custom-webhook/team")
    right, wrong = dict.fromkeys(map(str, range(40)), True), dict.fromkeys(map(str, range(40)), False)

    gate_alone([right, wrong])
    wait_for(lambda: "qcrd champion promoted" in triggered(clean), "the promotion's automation")
    wait_for(lambda: received, "its notification")
    assert received[0]["subject"].startswith("qcrd: qcrd-sums version 2 is the champion"), received
    assert "challenger 100.0%, champion 0.0% on the same 40 test questions" in received[0]["body"]
    [event] = events(clean, "qcrd.champion.promoted")
    assert event["resource"]["prefect.resource.id"] == "qcrd.model.qcrd-sums"
    assert "flow-run" in {related["prefect.resource.role"] for related in event["related"]}
    assert (event["payload"]["champion_before"], event["payload"]["only_challenger"]) == ("1", 40)

    gate_alone([wrong, right])
    wait_for(lambda: "qcrd quality dropped" in triggered(clean), "the automation of a drop")
    [event] = events(clean, "qcrd.quality.dropped")
    assert event["payload"]["high"] < 0
    assert len(events(clean, "qcrd.champion.kept")) == 1
    wait_for(lambda: len(received) == 2, "the second notification")
    assert received[1]["subject"] == "qcrd: qcrd-sums version 2 is worse than the champion"


def test_drift_is_told(clean: str, heard: tuple[str, list[dict[str, str]]], tmp_path: Path) -> None:
    hook, received = heard
    told = {"subject": "{{subject}}", "body": "{{body}}"}
    block = CustomWebhookNotificationBlock.model_validate({"name": "drift", "url": hook, "json_data": told})
    block.save("drift", overwrite=True)
    apply_automations(timedelta(seconds=300), "custom-webhook/drift")
    store, config = Store(tmp_path / "store"), DatasetConfig(name="svamp")
    for number, (questions, text, wrong) in enumerate([(range(60), SAME, OTHER), (range(60, 120), LONG, "No idea.")]):
        bring(store, tmp_path, f"file-{number}", questions, text, wrong)
        watch_alone(Workspace(home=tmp_path, store=str(tmp_path / "store"), run_id=f"run-{number}"), config)
    wait_for(lambda: "qcrd drift" in triggered(clean), "the automation of a drift")
    wait_for(lambda: received, "its notification")
    assert received[0]["subject"] == "qcrd: drift in svamp"
    [event] = events(clean, "qcrd.drift")
    assert (event["payload"]["before"], event["payload"]["questions"]) == ("run-0", 60)
    assert event["payload"]["reason"] in received[0]["body"]


def test_a_run_without_heartbeats_is_set_to_crashed(clean: str) -> None:
    apply_automations(timedelta(seconds=10), None)
    start_and_kill_a_flow(clean)
    mine = {"flow_runs": {"name": {"any_": ["sums new qcrd"]}}}
    assert ask(clean, "flow_runs/filter", mine)[0]["state"]["type"] == "RUNNING"
    wait_for(lambda: ask(clean, "flow_runs/filter", mine)[0]["state"]["type"] == "CRASHED", "the dead run's state")
    state = ask(clean, "flow_runs/filter", mine)[0]["state"]
    assert state["message"].startswith("No heartbeat for 10 s: the run's process is gone.")
    wait_for(lambda: "qcrd run failed" in triggered(clean), "the automation of a failed run")


def test_a_block_that_is_not_there_or_notifies_nobody(clean: str) -> None:
    with pytest.raises(UsageError, match=r"no block 'slack-webhook/team'\. Make it in its UI under Blocks"):
        apply_automations(timedelta(seconds=300), "slack-webhook/team")
    Secret.model_validate({"value": "x"}).save("quiet", overwrite=True)
    with pytest.raises(UsageError, match=r"'secret/quiet' sends no notifications"):
        apply_automations(timedelta(seconds=300), "secret/quiet")
    with pytest.raises(UsageError, match=r"TYPE/NAME, such as slack-webhook/team; got 'team'"):
        apply_automations(timedelta(seconds=300), "team")
    assert automations(clean) == {}


def test_a_server_that_is_not_there(qcrd: Qcrd) -> None:
    done = qcrd("automations", code=2, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.stderr.strip() == (
        "qcrd: No Prefect server answers at http://127.0.0.1:9/api (ConnectError). Start it, or correct "
        "PREFECT_API_URL."
    )


def test_a_student_that_learns_the_teacher_s_mistakes_is_told_of(
    clean: str, heard: tuple[str, list[dict[str, str]]], tmp_path: Path
) -> None:
    hook, received = heard
    told = {"subject": "{{subject}}", "body": "{{body}}"}
    block = CustomWebhookNotificationBlock.model_validate({"name": "proxy", "url": hook, "json_data": told})
    block.save("proxy", overwrite=True)
    apply_automations(timedelta(seconds=300), "custom-webhook/proxy")
    _, prepared, _ = hacked(tmp_path)
    assert proxy_alone(prepared.folder) == [False, False, False, True]
    wait_for(lambda: "qcrd proxy" in triggered(clean), "the automation")
    wait_for(lambda: received, "its notification")
    assert received[0]["subject"] == f"qcrd: {prepared.name} may be learning the teacher's mistakes"
    [event] = events(clean, "qcrd.proxy")
    assert (event["payload"]["round"], event["payload"]["since"], event["payload"]["questions"]) == (3, 1, 24)
    assert event["payload"]["reason"] == received[0]["body"]
    assert "rose from 54.2 to 100.0 % since round 1 (p = 0.00098), right answers went from 95.8" in received[0]["body"]
