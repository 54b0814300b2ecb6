"""Which failures of a step Prefect retries: those that may pass by themselves."""

from typing import Any

from models.errors import ServerFailed, TeacherUnavailable, WorkerDied
from storage.errors import StoreWriteFailed
from tasks.errors import TrackingFailed

MAY_PASS = (TeacherUnavailable, ServerFailed, WorkerDied, StoreWriteFailed, TrackingFailed)
"""Errors after which a retry may help; the others say what has to be changed first."""


def may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Tells Prefect whether to retry."""
    return isinstance(state.result(raise_on_failure=False), MAY_PASS)


STEP: dict[str, Any] = {"retries": 2, "retry_delay_seconds": 10, "retry_condition_fn": may_pass}
"""Arguments of every step's `@task`."""
