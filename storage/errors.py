"""What can go wrong in storage; tasks/errors.py draws the tree of all exceptions."""

from collections.abc import Iterable
from difflib import get_close_matches


class StorageError(Exception):
    """Base of the errors that storage raises on purpose."""


class UsageError(StorageError):
    """The caller asked for something that cannot be done."""


class UnknownName(UsageError):
    """A name that does not exist. The message suggests the nearest one and lists the valid ones.

    Args:
        kind: what it should name, in the user's words ("dataset", "column").
        name: what the user wrote.
        allowed: every valid name.
        hint: another sentence on what to do.
    """

    def __init__(self, kind: str, name: str, allowed: Iterable[str], hint: str = "") -> None:
        names = sorted(set(allowed))
        nearest = get_close_matches(name, names, n=1, cutoff=0.5)
        suggestion = f" Did you mean {nearest[0]!r}?" if nearest else ""
        listing = ", ".join(names) if names else "none"
        super().__init__(f"Unknown {kind} {name!r}.{suggestion} Allowed: {listing}.{' ' + hint if hint else ''}")

    def __reduce__(self) -> tuple[type[UsageError], tuple[str]]:
        """Pickles as its text, which is all that is ever shown of it."""
        return UsageError, (str(self),)


class NothingToDo(UsageError):
    """The selection holds no rows."""


class BadFile(StorageError):
    """A file given by the user is not what it should be."""


class NoField(BadFile):
    """A row has no column for a field of the dataset.

    Args:
        message: what it has.
        field: which one.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class OutOfReach(BadFile):
    """A source of questions cannot be reached now; its stored questions may do instead."""


class DamagedPart(StorageError):
    """A part file of the store is truncated, corrupt, or not of its table's columns."""


class NewerStore(StorageError):
    """The store was written by a newer schema version."""


class StoreWriteFailed(StorageError):
    """A write was refused; what was already stored is untouched."""


def one_line(error: BaseException) -> str:
    """What an exception says, to quote in a message of ours: its first paragraph, or its class if it says nothing."""
    said = " ".join(str(error).strip().split("\n\n")[0].split())
    return (said if len(said) <= 300 else said[:299] + "…").rstrip(".") or type(error).__name__
