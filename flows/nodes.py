"""The other nodes of a training over several machines, as flow runs on a work pool.

    with other_nodes(training, rounds):     # in the run that makes the rounds
        ...

`rounds.nodes_on` names the deployment of `train-node` (deploy/nodes.yaml). Without it somebody starts
`python -m tasks.training.nodes` on the other machines.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prefect import flow

from flows.prefect.pool_runs import cancel, pool_of, start, unfinished
from tasks.training.folder import Training
from tasks.training.nodes import follow
from tasks.training.rounds import is_over
from tasks.training.spec import RoundsConfig


@flow(name="train-node", flow_run_name="node {node} of {folder}")
def train_node(folder: Path, node: int) -> None:
    """Trains along on another machine, in all rounds that are left; a round that fails on one node ends it, too.

    Args:
        folder: of the training, which all machines see in the same place.
        node: from 1; 0 is the run that makes the rounds.
    """
    follow(folder, node)


@contextmanager
def other_nodes(training: Training, rounds: RoundsConfig) -> Iterator[None]:
    """Has the other nodes of a training started, and ended with the block; does nothing for one without any.

    Raises:
        UsageError: there is no such deployment.
    """
    if rounds.nodes_on is None or is_over(training.evaluations(), rounds):
        yield
        return
    deployment, tag = f"{train_node.name}/{rounds.nodes_on}", f"nodes of {training.folder.name}"
    pool_of(deployment, "rounds.nodes_on", "deploy/nodes.yaml")
    for run in unfinished(tag):  # of a run that was killed: they would take the places of these
        cancel(run)
    folder = training.folder.resolve()
    with ExitStack() as stack:
        for node in range(1, rounds.nodes):
            run = start(deployment, {"folder": str(folder), "node": node}, f"node {node} of {folder.name}", tag)
            stack.callback(cancel, run)
        yield
