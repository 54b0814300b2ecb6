"""What the folder of a model or round contains, and how files and folders appear whole or not at all."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODEL, OPTIMIZER, STATE = "model", "optimizer.safetensors", "state.json"
STEPS_FILE = "steps.jsonl"
ADAPTER_FILE = "adapter_config.json"  # its presence makes a folder one of adapters


def read_steps(folder: Path) -> list[dict[str, float]]:
    """The lines of a round's `steps.jsonl`; one that a killed process left unfinished is left out."""
    lines = []
    if (folder / STEPS_FILE).is_file():
        for text in (folder / STEPS_FILE).read_text(encoding="utf-8").splitlines(keepends=True):
            if text.endswith("}\n"):
                lines.append(json.loads(text))
    return lines


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that becomes `folder` at the end of the block, flushed to the disk, or never exists.

    An existing one is replaced. A process that is killed leaves a sibling `.NAME.partial-PID` behind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for path in partial.rglob("*"):
            if path.is_file():
                path.chmod(0o644)  # safetensors writes files that only their owner can read; a server may be another
            _flush(path)
        _flush(partial)
        if folder.exists():  # a rename cannot replace a folder that holds files
            replaced = folder.parent / f".{folder.name}.replaced-{os.getpid()}"
            folder.rename(replaced)
            partial.rename(folder)
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            partial.rename(folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """A path to write that becomes `file` at the end of the block, flushed to the disk, or never exists.

    An existing file is replaced; a reader sees the old one or the new one. Parent folders are created. A
    process that is killed leaves a sibling `.NAME.partial-PID` behind. Threads of one process must take turns.

    Raises:
        OSError: nothing was written, or the disk refuses.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.parent / f".{file.name}.partial-{os.getpid()}"
    partial.unlink(missing_ok=True)  # of an earlier process with the same pid
    try:
        yield partial
        _flush(partial)
        partial.replace(file)
        _flush(file.parent)
    finally:
        partial.unlink(missing_ok=True)


def is_leftover(name: str) -> bool:
    """Whether a file or folder is what a killed process left of one that was to appear whole."""
    return re.fullmatch(r"\..+\.(partial|replaced)-[0-9]+", name) is not None


def _flush(path: Path) -> None:
    """Makes the kernel write a file or folder to the disk now."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
