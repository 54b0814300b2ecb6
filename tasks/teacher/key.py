"""Reads a teacher's key from a Prefect Secret block.

The configuration names only the block. The key is read where it is used, and never becomes a parameter, a row or a tag.
"""

from typing import Any

from prefect.blocks.system import Secret

from models.teacher import TeacherKey
from storage.errors import UsageError


def key_of(block: str) -> TeacherKey:
    """The key in a Secret block; to be called within a flow or task.

    Raises:
        UsageError: there is no such block, or it holds no text.
    """
    try:
        # Not the block's own `get`: it reads texts as JSON if it can, so a key of digits would become a number.
        value: Any = Secret.load(block).value.get_secret_value()  # type: ignore[union-attr]
    except ValueError as error:
        if "Unable to find block document" not in str(error):
            raise UsageError(
                f"teacher.key_secret: Prefect's Secret block {block!r} cannot be read ({type(error).__name__})."
            ) from None
        raise UsageError(
            f"teacher.key_secret: Prefect knows no Secret block {block!r}. Make it on Prefect's pages (`qcrd ui`, or "
            "the server's own: Blocks, +, Secret), or in Python on a machine where PREFECT_API_URL is set: "
            f"prefect.blocks.system.Secret(value=KEY).save({block!r})."
        ) from None
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"teacher.key_secret: Prefect's Secret block {block!r} must hold the key as a text.")
    return TeacherKey(value.strip(), f"put a key it accepts into Prefect's Secret block {block!r}")
