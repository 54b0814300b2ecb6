"""What can go wrong in storage; tasks/errors.py draws it in one tree with everything else."""

from collections.abc import Iterable
from difflib import get_close_matches


class StorageError(Exception):
    """Base of every error that storage raises on purpose."""


class UsageError(StorageError):
    """The caller asked for something that cannot be done."""


class UnknownName(UsageError):
    """A name that does not exist. The message lists the valid ones and the nearest.

    Args:
        kind: what was being named, in the user's words ("dataset", "column").
        name: what the user wrote.
        allowed: every valid name.
        hint: one more sentence on what to do, if there is one.
    """

    def __init__(self, kind: str, name: str, allowed: Iterable[str], hint: str = "") -> None:
        names = sorted(set(allowed))
        nearest = get_close_matches(name, names, n=1, cutoff=0.5)
        suggestion = f" Did you mean {nearest[0]!r}?" if nearest else ""
        listing = ", ".join(names) if names else "none"
        super().__init__(f"Unknown {kind} {name!r}.{suggestion} Allowed: {listing}.{' ' + hint if hint else ''}")

    def __reduce__(self) -> tuple[type[UsageError], tuple[str]]:
        """How it crosses to another process: its text, which is all that is shown of it."""
        return UsageError, (str(self),)


class NothingToDo(UsageError):
    """The selection holds no rows."""


class BadFile(StorageError):
    """A file the user gave cannot be read as what it should be."""


class OutOfReach(BadFile):
    """A source of questions is not to be had now; what is stored of it may serve."""


class DamagedPart(StorageError):
    """A part file of the store is truncated or corrupt."""


class NewerStore(StorageError):
    """The store was written by a newer schema version."""


class StoreWriteFailed(StorageError):
    """A write was refused; what was stored before is untouched."""


def one_line(error: BaseException) -> str:
    """What an exception says, as part of a line of ours: its first paragraph, or its class where it says nothing."""
    said = " ".join(str(error).strip().split("\n\n")[0].split())
    return (said if len(said) <= 300 else said[:299] + "…").rstrip(".") or type(error).__name__
