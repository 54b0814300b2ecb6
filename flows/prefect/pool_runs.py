"""Flow runs that one run starts on a work pool of anybody's: of shards, of other nodes."""

from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling

from storage.errors import UsageError


def pool_of(deployment: str, setting: str, file: str) -> str | None:
    """The work pool of a deployment.

    Args:
        deployment: FLOW/NAME.
        setting: what names it, for the error's line.
        file: of deploy/, that makes it.

    Raises:
        UsageError: there is no such deployment.
    """
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment_by_name(deployment).work_pool_name
        except ObjectNotFound:
            flow, name = deployment.split("/")
            raise UsageError(
                f"{setting}: the flow {flow} has no deployment {name!r}. Make it with `prefect --no-prompt deploy "
                f"--prefect-file {file} --name {name}`, or leave {setting.rpartition('.')[2]} out."
            ) from None


def start(deployment: str, parameters: dict[str, Any], name: str, tag: str) -> UUID:
    """Schedules a run of a deployment, shown below this run in Prefect's UI."""
    run: FlowRun = run_deployment(  # type: ignore[assignment]  # without an event loop it is no coroutine
        deployment, parameters=parameters, timeout=0, flow_run_name=name, tags=[tag]
    )
    return run.id


def cancel(run: UUID) -> None:
    """Asks a run to end. One that has not begun does not begin."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
        if state is None or state.is_final():
            return
        began = state.type in (StateType.RUNNING, StateType.CANCELLING)
        client.set_flow_run_state(run, Cancelling() if began else Cancelled())


def unfinished(tag: str) -> list[UUID]:
    """The runs with a tag that have not ended, also those that an earlier process started."""
    open_states = [state for state in StateType if state not in TERMINAL_STATES]
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                tags=FlowRunFilterTags(all_=[tag]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=open_states)),
            )
        )
    return [run.id for run in found]
