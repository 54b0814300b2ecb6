"""Where the real recorded teacher samples lie, beside a checkout that has them. They are never copied into it."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "recorded"


def recorded_file(name: str) -> Path:
    """The path of a recorded file; skips the test, saying so, where the recordings are not there."""
    path = FOLDER / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"recorded teacher samples are not there: {name}.jsonl.gz beside the checkout")
    return path
