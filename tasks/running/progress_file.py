"""How far the steps of a run are, as a small file that other programs read: `<home>/runs/<run id>.json`.

A run rewrites its file every few seconds, whole or not at all. The file stays when the run is over, with no steps in
it. A killed run leaves its last steps there, so a reader asks `is_alive` first.
"""

import os
import socket
import threading
import time
from pathlib import Path

import psutil
from pydantic import BaseModel, Field, ValidationError

from models.folders import whole_file

FOLDER = "runs"


class LiveStep(BaseModel):
    """How far a step is.

    Attributes:
        done, wanted: samples, questions or optimizer steps.
        tokens_per_second: the sampled teacher's speed; None for other steps.
        cost: cost of the samples so far; None if no price is given.
        seconds_left: time until the step is done, at its pace so far; None until there is a pace.
        updated_at: when it was written, in seconds since 1970.
    """

    done: int
    wanted: int
    tokens_per_second: float | None = None
    cost: float | None = None
    seconds_left: float | None = None
    updated_at: float = Field(default_factory=time.time)


class LiveRun(BaseModel):
    """A run's file.

    Attributes:
        run_id: the run's id in the store's `runs` table.
        host, pid, started: the run's process; another process may have the same pid later.
        steps: the steps that are under way, by name.
    """

    run_id: str
    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid)
    started: float = Field(default_factory=lambda: psutil.Process().create_time())
    steps: dict[str, LiveStep] = Field(default_factory=dict)

    def is_alive(self) -> bool:
        """Whether the process is there; True if it runs on another machine, which cannot be seen from here."""
        if self.host != socket.gethostname():
            return True
        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.started) < 1)
        except psutil.NoSuchProcess:
            return False


_files: dict[Path, LiveRun] = {}
_lock = threading.Lock()  # methods of one run are trained in threads and share its file


def tell(home: Path, run_id: str, step: str, state: LiveStep | None) -> None:
    """Writes how far a step is; None says that it is over.

    Raises:
        OSError: the file cannot be written.
    """
    path = home / FOLDER / f"{run_id}.json"
    with _lock:
        run = _files.setdefault(path, LiveRun(run_id=run_id))
        if state is None:
            if run.steps.pop(step, None) is None:
                return
        else:
            run.steps[step] = state
        with whole_file(path) as partial:
            partial.write_text(run.model_dump_json(), encoding="utf-8")


def live_runs(home: Path) -> list[LiveRun]:
    """The runs of a state folder that have steps under way; files of other kinds are skipped."""
    found = []
    for path in sorted((home / FOLDER).glob("*.json")):
        try:
            run = LiveRun.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError):
            continue
        if run.steps and run.is_alive():
            found.append(run)
    return found
