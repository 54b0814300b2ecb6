"""Which failures of a step Prefect tries again: those that may pass by themselves."""

from typing import Any

from models.errors import ServerFailed, TeacherUnavailable, WorkerDied
from storage.errors import StoreWriteFailed
from tasks.errors import TrackingFailed

MAY_PASS = (TeacherUnavailable, ServerFailed, WorkerDied, StoreWriteFailed, TrackingFailed)
"""Errors after which trying again may help; the others say what somebody has to change first."""


def may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect asks whether to try again."""
    return isinstance(state.result(raise_on_failure=False), MAY_PASS)


STEP: dict[str, Any] = {"retries": 2, "retry_delay_seconds": 10, "retry_condition_fn": may_pass}
"""Arguments of every step's `@task`."""
