"""A step's work shared out over the GPUs of a training: sampling, scoring, asking questions.

    with other_shares(training, t, "scores"):      # in the process that does the step
        score_share(training, t, Share(0, of))
    # now all of it is done

The shares exchange nothing, so each is a process of its own that sees one GPU: no torchrun. What a share makes are rows
of the store, or a file that the step names; the process that does the step then finds them, and makes the outcome.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from models.errors import TrainingFailed
from models.hardware import gpu_names
from models.watchdog import Watched
from tasks.errors import ONE_LINE
from tasks.training.folder import Training


@dataclass(frozen=True)
class Share:
    """One of several parts of a list: the items whose place leaves `number` as remainder."""

    number: int
    of: int

    def has(self, place: int) -> bool:
        """Whether the item at a place, counted from 0, is in it."""
        return place % self.of == self.number


@contextmanager
def other_shares(training: Training, t: int, step: str, *arguments: object) -> Iterator[Share]:
    """Has all shares of a step but the first done by other processes, while the block does the first.

    Args:
        step: negatives, scores or answers.
        arguments: further ones of the step's function, as text.

    Yields:
        The first share.

    Raises:
        TrainingFailed: another process failed.
    """
    rounds = training.spec.config.rounds
    of, gpus = rounds.processes, gpu_names()
    with ExitStack() as stack:
        others = []
        for number in range(1, of):
            environment = {"OMP_NUM_THREADS": str(rounds.threads or 1), **os.environ}
            if gpus:
                environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
            command = [sys.executable, "-m", "tasks.training.shares", step, training.folder, t, number, of, *arguments]
            other = Watched(
                list(map(str, command)), grace_s=5.0, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                env=environment,
            )  # fmt: skip
            others.append(stack.enter_context(other))
        yield Share(0, of)
        for other in others:
            _, errors = other.process.communicate()
            if other.process.returncode:
                said = errors.strip().splitlines()[-1:] or ["it said nothing"]
                raise TrainingFailed(
                    f"One of {of} processes failed in the {step} of round {t} (exit code {other.process.returncode}): "
                    f"{said[0]}"
                )


def main(step: str, folder: Path, t: int, share: Share, arguments: list[str]) -> int:
    """A share's process."""
    training = Training(folder)
    threads = training.spec.config.rounds.threads
    if threads:
        import torch

        torch.set_num_threads(threads)
    try:
        if step == "negatives":
            from tasks.training.negatives import sample_share

            sample_share(training, t, share)
        elif step == "scores":
            from tasks.training.quality import score_share

            score_share(training, t, share)
        else:
            from tasks.training.asking import ask_share

            ask_share(training, t, share, Path(*arguments))
    except ONE_LINE as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    step_, folder_, t_, number_, of_, *arguments_ = sys.argv[1:]
    sys.exit(main(step_, Path(folder_), int(t_), Share(int(number_), int(of_)), arguments_))
