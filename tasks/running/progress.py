"""Reports how far a step of a run is: in Prefect's UI and log, and in the run's file (`progress_file`)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.running.progress_file import LiveStep, tell

PROGRESS_EVERY_S, LINE_EVERY_S = 2.0, 20.0


class Progress:
    """Passes on the reports of one step, but not too often.

    Args:
        home: the state folder.
        run_id: the run's id in the store's `runs` table.
        what: the step, for people: "sampling the teacher".
        key: its artifact's key: lowercase letters, digits and dashes. Artifacts that share a key are one entry in the
            UI's list, with the newest on top.
    """

    def __init__(self, home: Path, run_id: str, what: str, key: str) -> None:
        self.home, self.run_id, self.what, self.key = home, run_id, what, key
        self._log = get_run_logger()
        self._artifact: UUID | None = None
        self._told = 0.0
        self._logged = time.monotonic()
        self._began: tuple[float, int] | None = None  # when, and how many were done then
        self._warned = False

    def __call__(
        self,
        done: int,
        total: int,
        note: str = "",
        *,
        tokens_per_second: float | None = None,
        cost: float | None = None,
    ) -> None:
        """Reports that `done` of `total` are done; a note for people, and the teacher's speed and cost if known."""
        now = time.monotonic()
        self._began = self._began or (now, done)
        if done < total and now - self._told < PROGRESS_EVERY_S:
            return
        self._told = now
        left = self._seconds_left(done, total, now)
        state = LiveStep(done=done, wanted=total, tokens_per_second=tokens_per_second, cost=cost, seconds_left=left)
        line = progress_line(self.what, state, note)
        if done < total and now - self._logged > LINE_EVERY_S:
            self._log.info(line)
            self._logged = now
        share = 100.0 * done / max(total, 1)
        if self._artifact is None:
            self._artifact = cast(UUID, create_progress_artifact(share, key=self.key, description=line))
        else:
            update_progress_artifact(self._artifact, share, description=line)
        self._tell(state)

    def over(self) -> None:
        """The step has ended, well or not."""
        self._tell(None)

    def _seconds_left(self, done: int, total: int, now: float) -> float | None:
        began, first = self._began or (now, done)
        return (total - done) * (now - began) / (done - first) if done > first else None

    def _tell(self, state: LiveStep | None) -> None:
        try:
            tell(self.home, self.run_id, self.what, state)
        except OSError as error:  # a full disk ends the run where data would be lost, not here
            if not self._warned:
                self._log.warning("The run's file for monitoring cannot be written: %s", error)
            self._warned = True


@contextmanager
def progress(home: Path, run_id: str, what: str, key: str) -> Iterator[Progress]:
    """The progress reports of one step; see `Progress`."""
    report = Progress(home, run_id, what, key)
    try:
        yield report
    finally:
        report.over()


def progress_line(what: str, state: LiveStep, note: str = "") -> str:
    """A line for people: "sampling the teacher: 4,855 of 7,500, 8,757 tokens/s, cost 0.0123, about 20 s left"."""
    parts = [f"{what}: {state.done:,} of {state.wanted:,}"]
    if note:
        parts.append(note)
    if state.tokens_per_second is not None:
        parts.append(f"{state.tokens_per_second:,.0f} tokens/s")
    if state.cost is not None:
        parts.append(f"cost {state.cost:,.4f}")
    if state.seconds_left and state.done < state.wanted:
        parts.append(f"about {_duration(state.seconds_left)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
