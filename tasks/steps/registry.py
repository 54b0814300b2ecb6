"""The end of a distillation as Prefect tasks: registers the best student and holds it against the champion."""

from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.running.workspace import Workspace
from tasks.steps.retries import STEP
from tasks.tracking.challenger import judge_registered, register_best
from tasks.tracking.client import LoggedRound, open_tracking
from tasks.tracking.gate import Verdict
from tasks.tracking.registry import Registered
from tasks.tracking.settings import RegistrySettings


@task(name="register", **STEP, cache_policy=NO_CACHE)
def register(
    workspace: Workspace, folder: Path, best: LoggedRound, settings: RegistrySettings, lineage: dict[str, str]
) -> Registered:
    """Makes the best student a version of the registered model.

    Args:
        folder: its training's folder.
        best: its round in MLflow.
        lineage: further tags.
    """
    tags = {"run_id": workspace.run_id, **lineage}
    return register_best(open_tracking(workspace.home), folder, best, settings, tags)


@task(name="gate", **STEP, cache_policy=NO_CACHE)
def gate(workspace: Workspace, folder: Path, challenger: Registered, settings: RegistrySettings) -> Verdict:
    """Makes the challenger champion if it is better than the champion on the same test questions."""
    verdict = judge_registered(open_tracking(workspace.home), folder, challenger, settings)
    get_run_logger().info("%s version %s: %s", challenger.name, challenger.version, verdict.reason)
    return verdict
