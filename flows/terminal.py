"""What the command line prints and how: results on standard output, progress and notices on standard error."""

import dataclasses
import errno
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text


class Output(Console):
    """Standard output. It is not an error if the reader closes it (`| head`): `flows.cli` then exits with 0."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


out = Output(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False)

# Everything a terminal acts on, except line feed and tab: texts of datasets and teachers are data, never commands.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str | None, style: str = "") -> Text:
    """Somebody else's text, with nothing in it that the terminal or rich would act on."""
    return Text(inert(text or ""), style=style)


def inert(text: str) -> str:
    """A text with a replacement mark for everything that a terminal would act on."""
    return CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def print_json(result: Any) -> None:
    """One JSON object (a dataclass, a dict or a list of them) on standard output."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        result = dataclasses.asdict(result)
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    text = json.dumps(result, ensure_ascii=False, indent=2, default=str)
    # JSON escapes only some of the characters that a terminal acts on.
    sys.stdout.write(CONTROLS.sub(lambda control: f"\\u{ord(control[0]):04x}", text) + "\n")


def notice(text: str) -> None:
    """One line on standard error for people; results never go there."""
    err.print(plain(text, "dim"), soft_wrap=True)


def figure(value: float | int | str | None) -> str:
    """A figure for people: thousands separated, fractions with three digits, `-` for none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else value


def percent(value: float | None) -> str:
    """A share as a percentage with one digit."""
    return "-" if value is None else f"{100 * value:.1f} %"


def duration(seconds: float) -> str:
    """Seconds for people: `8 s`, `3:20`, `2:05:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"


def data_size(count: int) -> str:
    """Bytes for people: `3.4 MiB`."""
    return f"{count / 2**20:,.1f} MiB"


@contextmanager
def progress_bar(*, show: bool) -> Iterator[Progress]:
    """A progress bar on standard error; silent if that is not a terminal or `show` is false."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=err, transient=True, disable=not (show and err.is_terminal)) as progress:
        yield progress
