"""Serves the flow `distill` as a Prefect deployment: on a schedule, with its parameters as a form in the UI."""

import os
from pathlib import Path
from typing import Any

from prefect import serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments import run_deployment
from prefect.schedules import Cron, Interval
from prefect.types.entrypoint import EntrypointType

from flows.config.distill import DistillConfig
from flows.config.schedule import When
from flows.distill import distill
from flows.runs import SERVED_BY
from storage.errors import UsageError, one_line


def serve_distill(name: str, config: DistillConfig, home: Path, when: When, *, queue: bool, at_once: bool) -> None:
    """Serves the deployment until the process is told to end.

    Args:
        name: the deployment's name.
        config: every run's configuration; a run that is started by hand in the UI may change it there.
        home: the state folder.
        when: the schedule.
        queue: a run that is due while another one runs waits for it; otherwise it is cancelled.
        at_once: also start one run now.

    Raises:
        UsageError: the cron expression is wrong.
    """
    try:
        schedule = Cron(when.cron, timezone=when.timezone) if when.cron else Interval(when.interval or 0)
    except ValueError as error:
        raise UsageError(f"--cron {when.cron!r} is not a cron expression: {one_line(error)}.") from error
    os.environ[SERVED_BY] = str(os.getpid())  # runs are started by this process, and end with it
    strategy = ConcurrencyLimitStrategy.ENQUEUE if queue else ConcurrencyLimitStrategy.CANCEL_NEW
    deployment: Any = distill.to_deployment(
        name,
        schedule=schedule,
        parameters={"config": config.model_dump(mode="json"), "home": str(home.resolve())},
        tags=[config.dataset.name, config.method.name],
        description=distill.description,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=strategy),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    if at_once:
        deployment.apply()
        run_deployment(f"{distill.name}/{name}", timeout=0, as_subflow=False)
    serve(deployment, print_starting_message=False)
