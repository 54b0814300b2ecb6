"""Finds texts again wherever they were quoted: escaped for JSON, HTML, markdown or a log, shortened, on one line.

Both sides are reduced to their letters and digits, so no escape, line break or markup hides a text. Its beginning is
enough: what shows a text may shorten it. A short one is looked for between word boundaries, as it is.
"""

import html
import json
import re
import sys
from collections.abc import Iterable
from typing import Any

GONE = "(forgotten)"
"""What takes a text's place."""
SHORT, BEGINNING = 24, 160
"""Letters and digits below which a text is a short one, and how many of a longer one are compared."""
FEW = 50
_CODE = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2}))")
_LINE = re.compile(r"\\[nrtbf]|[\x00-\x1f\x7f]")
_ESCAPE, _OTHERS = re.compile(r"\\+"), re.compile(r"[\W_]+")


class Quotes:
    """Texts that must not be quoted anywhere.

    Args:
        texts: of questions and the like; empty ones do not count.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        short, long = set(), set()
        for text in texts:
            letters = _letters(text)
            if len(letters) >= SHORT:
                long.add(letters[:BEGINNING])
            elif folded := _folded(text):
                short.add(folded)
        self._long = sorted(long)
        self._starts: dict[str, list[str]] = {}
        for one in self._long:
            self._starts.setdefault(one[:SHORT], []).append(one)
        alternatives = "|".join(map(re.escape, sorted(short, key=len, reverse=True)))
        self._short = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)") if alternatives else None

    def __bool__(self) -> bool:
        return bool(self._long or self._short)

    def in_(self, text: str) -> bool:
        """Whether a text quotes one of them."""
        if self._short and self._short.search(_folded(text)):
            return True
        if not self._long:
            return False
        letters = _letters(text)
        if len(self._long) <= FEW:
            return any(one in letters for one in self._long)
        for place in range(len(letters) - SHORT + 1):
            for one in self._starts.get(letters[place : place + SHORT], ()):
                if letters.startswith(one, place):
                    return True
        return False

    def removed(self, value: Any) -> Any:
        """A JSON value in which every string that quotes one is replaced; a string may be JSON itself."""
        if isinstance(value, dict):
            return {GONE if self.in_(key) else key: self.removed(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.removed(inner) for inner in value]
        if not isinstance(value, str) or not self.in_(value):
            return value
        try:
            inner = json.loads(value)
        except ValueError:
            return GONE
        return GONE if not isinstance(inner, (dict, list, str)) else json.dumps(self.removed(inner), ensure_ascii=False)


def _plain(text: str) -> str:
    """A text without the escapes of JSON, Python and HTML."""
    text = _CODE.sub(_character, text)
    if not text.isascii():  # a pair of surrogates is one character
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    while (less := html.unescape(text)) != text:
        text = less
    return _LINE.sub(" ", text).casefold()


def _character(found: re.Match[str]) -> str:
    code = int(found[1] or found[2] or found[3], 16)
    return chr(code) if code <= sys.maxunicode else " "


def _letters(text: str) -> str:
    return _OTHERS.sub("", _plain(text))


def _folded(text: str) -> str:
    return " ".join(_ESCAPE.sub("", _plain(text)).split())
