"""Builds the lab's teacher: worked problems from storage, training in models, one cached folder.

The teacher has to be usefully wrong: its samples must err, and err differently, or voting has nothing to do. Stopping
the training of a small model early is not enough. At 80% right its five samples mostly share their mistakes, and the
majority gained only 1 to 5 points over one sample (measured with faultless solutions at several budgets). So a share of
the calculations in its training solutions (`LabTeacherConfig.slips`) is off by one, like a hurried pupil's, and the
rest of the solution builds on the slip. The teacher learns how likely a slip is, and its samples slip independently.
`slips=0` trains on faultless solutions.
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

import psutil  # type: ignore[import-untyped,unused-ignore]

from models.configs import LabTeacherConfig
from models.hardware import usable_cores
from storage.datasets.lab import teacher_texts
from storage.datasets.lab_problems import PROBLEM_VERSION
from storage.locks import file_lock

if TYPE_CHECKING:
    from models.lab_teacher import Progress

WAITING = "OMP_WAIT_POLICY"
"""OpenMP's variable that says what its threads do while they wait: `passive` lets them sleep."""
SPIN_FIRST = {"GOMP_SPINCOUNT": "100000", "KMP_BLOCKTIME": "1"}
"""GNU's and Intel's OpenMP: threads look for work for a fraction of a millisecond (a millisecond) before they sleep."""
IDLE_PERCENT = 30.0
"""A machine whose cores are busier than this, all together, is not idle."""


@dataclass(frozen=True)
class LabBuild:
    """The outcome of a build.

    Attributes:
        folder: the teacher, an ordinary Hugging Face model folder.
        reused: whether it was there already, or another process finished it while this one waited.
        seconds: how long this call took.
    """

    folder: Path
    reused: bool
    seconds: float


def lab_folder(home: Path, config: LabTeacherConfig | None = None) -> Path:
    """The folder where a configuration's teacher is cached, whether or not it exists.

    Its name contains a hash of everything that decides its weights: the configuration and the problems' version.
    """
    settings = (config or LabTeacherConfig()).model_dump(mode="json") | {"problem_version": PROBLEM_VERSION}
    settings["threads"] = 1  # once a setting, without effect; so teachers from then are still found
    digest = sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return home / "lab" / f"teacher-{digest[:12]}"


def find_lab(home: Path, config: LabTeacherConfig | None = None) -> Path | None:
    """The folder of the finished teacher, or None if it is not built."""
    folder = lab_folder(home, config)
    return folder if folder.is_dir() else None


def build_lab(
    home: Path,
    config: LabTeacherConfig | None = None,
    force: bool = False,
    on_progress: "Progress | None" = None,
) -> LabBuild:
    """Trains the lab's teacher unless it is cached. Of two simultaneous builds one trains and the other waits for it.

    Args:
        home: the state folder; the teacher goes to `<home>/lab/teacher-<hash>`.
        config: which teacher; the default one takes about three minutes.
        force: train even if it is cached, and replace it once the new one is complete.
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
            from models.lab_teacher import train_lab_teacher  # needs torch, which finding the teacher does not

            _remove_leftovers(folder)
            texts = teacher_texts(config.texts, config.slips)
            train_lab_teacher(texts, folder, config, on_progress, threads=threads)
    return LabBuild(folder, reused, time.monotonic() - started)


def _threads() -> int:
    """How many threads to train with; to be called before torch is imported.

    Two threads reach the same weights, bit for bit, in less time. But OpenMP's threads keep their cores busy while they
    wait for each other. If another program wants one of the cores, both threads slow down; 30 times slower was seen. So
    there are two only if they can be told to sleep, which OpenMP reads when torch loads it. Waking up takes time, too:
    on an idle machine they look for work for a moment before they sleep (docs/measurements.md). Whether more than two
    would pay for a model this small has not been measured.
    """
    if "torch" in sys.modules or os.environ.get(WAITING, "passive").lower() != "passive":
        return 1
    if WAITING not in os.environ and psutil.cpu_percent(interval=0.5) < IDLE_PERCENT:
        for name, value in SPIN_FIRST.items():
            os.environ.setdefault(name, value)
    else:
        os.environ[WAITING] = "passive"
    return min(2, len(usable_cores()))


def _remove_leftovers(folder: Path) -> None:
    """Removes what killed builds left beside the folder; called under the lock, so nobody needs it."""
    for leftover in [
        *folder.parent.glob(f".{folder.name}.partial-*"),
        *folder.parent.glob(f".{folder.name}.replaced-*"),
    ]:
        shutil.rmtree(leftover, ignore_errors=True)
