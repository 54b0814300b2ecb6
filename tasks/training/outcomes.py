"""A step's outcome as a small JSON file, written last: where it is, the step is done and is not done again."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

Outcome = TypeVar("Outcome", bound=BaseModel)


def read_outcome(file: Path, kind: type[Outcome]) -> Outcome | None:
    """The outcome of a step that is done, or None."""
    return kind.model_validate(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def once(file: Path, kind: type[Outcome], step: Callable[[], Outcome]) -> Outcome:
    """The outcome of a step: the stored one, or else the step is done and its outcome stored.

    A step that is interrupted leaves no outcome, so it is done again; whatever it stores by then must bear that.
    """
    known = read_outcome(file, kind)
    if known is not None:
        return known
    outcome = step()
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(outcome.model_dump_json(indent=1) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
    return outcome
