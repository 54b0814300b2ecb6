"""Builds the lab's teacher: worked problems from storage, training in models, one cached folder.

The teacher has to be usefully wrong: its samples must err, and err differently, or voting has nothing to do. A
small model that is merely stopped early does not do that. At 80% right its five samples mostly share their
mistakes, and the majority gained 1 to 5 points over one sample (measured with faultless solutions at several
budgets). So a share of the calculations in its training solutions (`LabTeacherConfig.slips`) is off by one, as a
hurried pupil's are, and the rest of the solution builds on the slip. The teacher learns how likely a slip is, and
its samples slip independently. `slips=0` trains on faultless solutions.
"""

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from models.configs import LabTeacherConfig
from models.hardware import usable_cores
from storage.datasets.lab import teacher_texts
from storage.datasets.lab_problems import PROBLEM_VERSION
from storage.locks import file_lock

if TYPE_CHECKING:
    from models.lab_teacher import Progress

WAITING = "OMP_WAIT_POLICY"
"""OpenMP's variable for what its threads do while they wait."""


@dataclass(frozen=True)
class LabBuild:
    """The outcome of a build.

    Attributes:
        folder: the teacher, an ordinary Hugging Face model folder.
        reused: True where it was there already, or another process finished it while this one waited.
        seconds: how long this call took.
    """

    folder: Path
    reused: bool
    seconds: float


def lab_folder(home: Path, config: LabTeacherConfig | None = None) -> Path:
    """Where the teacher of a configuration is cached, whether or not it is there.

    The name holds a hash of everything that decides its weights: the configuration and the problems' version.
    """
    settings = (config or LabTeacherConfig()).model_dump(mode="json") | {"problem_version": PROBLEM_VERSION}
    settings["threads"] = 1  # was a setting once, and made no difference; teachers from then are still found
    digest = sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return home / "lab" / f"teacher-{digest[:12]}"


def find_lab(home: Path, config: LabTeacherConfig | None = None) -> Path | None:
    """The folder of the finished teacher, or None where it is not built."""
    folder = lab_folder(home, config)
    return folder if folder.is_dir() else None


def build_lab(
    home: Path,
    config: LabTeacherConfig | None = None,
    force: bool = False,
    on_progress: "Progress | None" = None,
) -> LabBuild:
    """Trains the lab's teacher unless it is cached. Of two builds at once one trains and the other waits for it.

    Args:
        home: the state folder; the teacher goes to `<home>/lab/teacher-<hash>`.
        config: the teacher; the default one takes about three minutes.
        force: train even where it is cached, and replace it once the new one is complete.
        on_progress: called during training.
    """
    started = time.monotonic()
    config = config or LabTeacherConfig()
    folder = lab_folder(home, config)
    if not force and folder.is_dir():
        return LabBuild(folder, reused=True, seconds=time.monotonic() - started)
    with file_lock(folder.with_name(f".{folder.name}.lock")):
        reused = not force and folder.is_dir()  # another build may have finished it while this one waited
        if not reused:
            threads = _threads()
            from models.lab_teacher import train_lab_teacher  # with torch, which finding the teacher does not need

            _remove_leftovers(folder)
            texts = teacher_texts(config.texts, config.slips)
            train_lab_teacher(texts, folder, config, on_progress, threads=threads)
    return LabBuild(folder, reused, time.monotonic() - started)


def _threads() -> int:
    """How many threads to train with; to be asked before torch is imported.

    Two come to the same weights, bit for bit, in less time. But OpenMP's threads keep their cores busy while they wait
    for each other, and wherever something else wants a core both of them get slower, 30 times was seen. So it is two
    only where they can be told to sleep, and OpenMP listens to that when torch loads it. Whether more than two would
    pay for a model this small has not been measured.
    """
    if "torch" in sys.modules or os.environ.setdefault(WAITING, "passive").lower() != "passive":
        return 1
    return min(2, len(usable_cores()))


def _remove_leftovers(folder: Path) -> None:
    """Removes what a build that was killed left beside the folder; called under the lock, so nobody needs it."""
    for leftover in [
        *folder.parent.glob(f".{folder.name}.partial-*"),
        *folder.parent.glob(f".{folder.name}.replaced-*"),
    ]:
        shutil.rmtree(leftover, ignore_errors=True)
