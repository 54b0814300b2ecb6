"""Which trainings' folders nobody has used for a while, and how one is removed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import Timeout

from storage.locks import file_lock
from tasks.training.folder import LOCKS, TRAININGS, trainings_in

_REMOVED = ".removed-"


@dataclass(frozen=True)
class OldTraining:
    """A training's folder.

    Attributes:
        folder: where it is.
        bytes: of its files.
    """

    folder: Path
    bytes: int


def old_trainings(home: Path, before: datetime) -> list[OldTraining]:
    """Trainings in which nothing was written, and that no run has taken up or found done, since a moment."""
    found = []
    for training in trainings_in(home):
        files = [file.stat() for file in training.folder.rglob("*") if file.is_file()]
        # A run that finds its training done takes its locks, too, which touches their files.
        if datetime.fromtimestamp(max(file.st_mtime for file in files), UTC) < before:
            found.append(OldTraining(training.folder, sum(file.st_size for file in files)))
    return found


def remove_training(folder: Path) -> bool:
    """Deletes a training's folder; returns False if somebody works in it.

    It is renamed first: a process that dies leaves no half of a training. `remove_leftovers` deletes what it left.
    """
    with alone_in(folder) as alone:
        if not alone:
            return False
        removed = folder.with_name(f".{folder.name}{_REMOVED}{os.getpid()}")
        folder.rename(removed)
    shutil.rmtree(removed)
    return True


@contextmanager
def alone_in(folder: Path) -> Iterator[bool]:
    """Keeps everybody out of a training's folder during the block; yields False if somebody works in it."""
    with ExitStack() as held:
        try:
            for name in LOCKS:
                held.enter_context(file_lock(folder / name).acquire(blocking=False))
        except Timeout:
            held.close()
            yield False
            return
        yield True


def remove_leftovers(home: Path) -> None:
    """Deletes what killed processes left of removed trainings."""
    for folder in (home / TRAININGS).glob(f".*{_REMOVED}*"):
        shutil.rmtree(folder, ignore_errors=True)
