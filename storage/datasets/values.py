"""The values of cells: as text, as JSON, and read back from the text that a program made of them."""

import ast
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from storage.errors import BadFile
from storage.rows import parse_json

MAX_PRINTED = 100_000  # characters of a printed list; choices have a few hundred


def as_text(value: Any, field: str) -> str:
    """The value as text: None as "", bytes decoded as UTF-8, numbers and dates as Python writes them.

    Raises:
        BadFile: a list, an object, or bytes that are not UTF-8; the message names the field.
    """
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise BadFile(f"{field} holds bytes that are not UTF-8 text") from error
    if isinstance(value, (list, tuple, Mapping)):
        raise BadFile(f"{field} must be a text, not {type(value).__name__}")
    return str(value)


def jsonable(value: Any) -> Any:
    """The value in a form that JSON can hold: dates, decimals, bytes and other objects become text."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(inner) for inner in value]
    if isinstance(value, (set, frozenset)):
        return sorted((jsonable(inner) for inner in value), key=str)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else repr(value)[:200]


def written_value(text: str) -> Any:
    """The list or object that a text holds: JSON, or what Python, pandas and numpy print.

    A data frame saved as CSV has such cells: "['sea', 'land']", "['sea' 'land']" (numpy writes no commas),
    "{'label': array(['A', 'B'], dtype=object), 'text': ...}".

    Raises:
        ValueError: it holds none.
    """
    try:
        return parse_json(text)
    except ValueError:
        if len(text) > MAX_PRINTED:
            raise
    pieces = _QUOTED.split(text)  # the quoted texts at odd places, what is around them at even ones
    for place in range(0, len(pieces), 2):
        plain = _NO_COMMA.sub(r"\1, ", _ARRAY.sub("", pieces[place]))
        between = 0 < place < len(pieces) - 1
        pieces[place] = "," if between and plain.isspace() else plain
    try:
        # Literals only: nothing is called, whatever the text says.
        return ast.literal_eval("".join(pieces))
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError("neither JSON nor a printed list") from error


_QUOTED = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)
_ARRAY = re.compile(r"\barray\((?=\[)|(?<=\]),?\s*dtype=\w+\)|(?<=\])\)")
_NO_COMMA = re.compile(r"([}\]])\s+(?=[{\[])")
