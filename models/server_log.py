"""Reading vLLM's log: what it is doing right now, and the one line that says why it died."""

import re
from pathlib import Path

TAIL_BYTES = 200_000  # enough for vLLM's longest start, its stack traces included

# "(EngineCore pid=7) ERROR 11-21 07:31:50 [core.py:133] " in front of the actual message
PREFIX = re.compile(r"^(\([^)]*pid=\d+\)\s*)?((DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:.]+ (\[[^\]]*\] ?)?)?")
ERROR = re.compile(r"^(\S+\.py: error: |([\w]+\.)*\w*(Error|Exception|Killed)\b: ?\S)")
# These only point at an error that is printed elsewhere.
POINTERS = (
    "See root cause",
    "See stack trace",
    "Engine core initialization failed",
    "WorkerProc initialization failed",
)

# The last of these that the log holds is what the server is doing.
PHASES = (
    ("non-default args", "reading the model's configuration"),
    ("Initializing a V1 LLM engine", "starting the engine"),
    ("Starting to load model", "loading the weights"),
    ("KV cache size", "warming up"),
    ("Application startup complete", "answering the first health check"),
)


def tail(path: Path, offset: int) -> list[str]:
    """The log's lines from byte `offset` on, at most the last 200 kB of them; empty where there is no log."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(offset, size - TAIL_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []


def phase(lines: list[str]) -> str:
    """What a starting server is doing, for people."""
    doing = "importing vLLM"
    text = "\n".join(lines)
    for mark, words in PHASES:
        if mark in text:
            doing = words
    return doing


def last_words(lines: list[str]) -> str:
    """The line that says best why the server died: the first error that is not a pointer to another, else the last
    line that is not a warning; "nothing in its log" for an empty log."""
    said = [PREFIX.sub("", line).strip() for line in lines]
    errors = [line for line in said if ERROR.match(line) and not any(mark in line for mark in POINTERS)]
    spoken = [line for line in said if line and "Warning" not in line and "warnings.warn" not in line]
    return (errors or spoken[-1:] or ["nothing in its log"])[0][:400]
