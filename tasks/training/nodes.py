"""A round's training in several processes, on one machine or on several (nodes); torchrun starts them.

    train_together(training, t)                      # on the first node, by the process that does the round
    python -m tasks.training.nodes FOLDER NODE       # on every other one, NODE counted from 1: all rounds, one by one

The first node's first process alone writes: checkpoints, figures, the outcome. All nodes read the training's folder and
the store, which are in the same place on each. torchrun's static rendezvous gives the first node the first place; with
its `c10d` backend the nodes' addresses would decide it. Whoever waits for a node, or for its part of a gradient, waits
for a bounded time, so a node that dies ends the round on all of them. The next attempt goes on from the checkpoint.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from models.errors import ModelError, TrainingFailed
from models.watchdog import Watched
from storage.errors import StorageError, UsageError
from tasks.training.folder import Training
from tasks.training.outcomes import RoundTrained

MEET_S = 600
"""How long the first node waits for the others."""
WAIT_S = 24 * 3600
"""How long another node waits for a round to begin: the first one also samples and evaluates."""


def train_together(training: Training, t: int) -> RoundTrained:
    """Trains round t in several processes; each of them runs `tasks.training.student`.

    Raises:
        TrainingFailed: a process or a node died, or did not come.
    """
    known = training.outcome(RoundTrained, t)
    if known is not None:
        return known
    _launch(training, t, 0, MEET_S)
    trained = training.outcome(RoundTrained, t)
    if trained is None:
        raise TrainingFailed(f"Round {t} ended on all nodes, but {training.folder} has no outcome of it.")
    return trained


def follow(folder: Path, node: int, wait_s: int = WAIT_S) -> None:
    """Trains along on another node than the first, until the training's last round or until a round fails.

    Raises:
        UsageError: the folder is no training here, or the training has no such node.
        TrainingFailed: a process or a node died, or no round began in time.
    """
    training = Training(folder)
    if not training.is_one:
        raise UsageError(
            f"{folder} is no training on this machine. Every node needs the state folder and the store of the first "
            "one in the same place: a file system that all of them mount."
        )
    rounds = training.spec.config.rounds
    if not 1 <= node < rounds.nodes:
        raise UsageError(f"{folder} has no node {node}: rounds.nodes is {rounds.nodes}, and node 0 does the rounds.")
    for t in range(rounds.rounds):
        if training.outcome(RoundTrained, t) is None:
            _launch(training, t, node, wait_s)


def _launch(training: Training, t: int, node: int, wait_s: int) -> None:
    """Runs this node's processes of round t to their end."""
    rounds = training.spec.config.rounds
    where = ["--standalone"]
    if rounds.nodes > 1:
        where = [
            "--nnodes", str(rounds.nodes), "--node-rank", str(node), "--rdzv-backend", "static",
            "--rdzv-endpoint", str(rounds.rendezvous), "--rdzv-id", f"{training.spec.training_id}-{t}",
            "--rdzv-conf", f"timeout={wait_s}",
        ]  # fmt: skip
    # `accelerate launch` starts torchrun for several GPUs, too, but on a CPU it starts a single process, whatever
    # number it is given (accelerate 1.15).
    command = [
        sys.executable, "-m", "torch.distributed.run", *where, "--nproc_per_node", str(rounds.processes),
        "-m", "tasks.training.student", str(training.folder), str(t),
    ]  # fmt: skip
    environment = {"OMP_NUM_THREADS": str(rounds.threads or 1), **os.environ}
    began = time.monotonic()
    with Watched(
        command, grace_s=5.0, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as launched:
        _, errors = launched.process.communicate()
    code = launched.process.returncode
    if code == 0:
        return
    told = [line for line in errors.splitlines() if line.startswith("{")]
    reason = json.JSONDecoder().raw_decode(told[-1])[0]["error"] if told else " ".join(errors.split())[-300:]
    if rounds.nodes > 1 and not told and time.monotonic() - began >= wait_s:
        reason = (
            f"not all {rounds.nodes} nodes met at {rounds.rendezvous} within {wait_s} s. Start `python -m "
            f"{__spec__.name} {training.folder} NODE` on the others, and check that they reach that address"
        )
    of = f"{rounds.processes} processes" + (f" on each of {rounds.nodes} nodes" if rounds.nodes > 1 else "")
    raise TrainingFailed(f"Round {t} failed in {of} (exit code {code}): {reason}")


def main() -> int:
    """The command that other nodes run."""
    parser = argparse.ArgumentParser(description=follow.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the training's folder: HOME/trainings/ID")
    parser.add_argument("node", type=int, help="which node this is, from 1")
    parser.add_argument("--wait", type=int, default=WAIT_S, help="seconds to wait for a round (%(default)s)")
    options = parser.parse_args()
    try:
        follow(options.folder, options.node, options.wait)
    except (StorageError, ModelError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
