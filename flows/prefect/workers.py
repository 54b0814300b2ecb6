"""Prefect workers of this process, for runs that no work pool of anybody's takes."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType

from models.watchdog import Watched

QUERY_S = 2  # how often a worker asks for runs; Prefect's own is 10
GRACE_S = 30.0


@contextmanager
def own_workers(
    flow: Flow[..., Any], name: str, logs: Path, limits: Sequence[tuple[int, dict[str, str]]]
) -> Iterator[str]:
    """A deployment of a flow, a pool and workers for it, all gone after the block; they end with this process.

    Args:
        flow: what is deployed, from an installed module.
        name: of the deployment and of its pool; another run's workers must not take these runs.
        logs: folder for the workers' logs.
        limits: for each worker, how many runs it has at a time, and variables of its environment.

    Yields:
        The deployment, as FLOW/NAME.
    """
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack, get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"), overwrite=True)
        stack.callback(_delete_pool, name)
        deployment: Any = flow.to_deployment(
            name,
            work_pool_name=name,
            job_variables={"working_dir": str(Path.cwd())},
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        deployed = deployment.apply()
        stack.callback(_delete_deployment, deployed)
        for number, (limit, variables) in enumerate(limits):
            log = stack.enter_context((logs / f"{name}-worker-{number}.log").open("ab"))
            command = [
                sys.executable, "-m", "prefect", "worker", "start", "--pool", name, "--type", "process",
                "--limit", str(limit), "--name", f"{name}-{number}", "--install-policy", "never",
            ]  # fmt: skip
            environment = {
                **os.environ,
                "PREFECT_API_URL": str(PREFECT_API_URL.value()),  # a command's own server is not in the environment
                "PREFECT_WORKER_QUERY_SECONDS": str(QUERY_S),
                **variables,
            }
            stack.enter_context(Watched(command, grace_s=GRACE_S, env=environment, stdout=log, stderr=log))
        yield f"{flow.name}/{name}"


def _delete_pool(name: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            client.delete_work_pool(name)
        except ObjectNotFound:  # somebody did so in the UI
            return


def _delete_deployment(deployment: Any) -> None:
    with get_client(sync_client=True) as client:
        try:
            client.delete_deployment(deployment)
        except ObjectNotFound:
            return
