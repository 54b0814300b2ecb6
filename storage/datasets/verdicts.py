"""Reads texts that say yes or no of each option: "Entailment: no\\nNeutral: yes", "(a) ✗ (b) ✓", "[x] neutral".

The option that alone has a yes is the answer. From a no never follows that another option holds.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from storage.datasets.spellings import Options, lines_form, places

_YES = "yes|true|correct|right|ja|richtig|wahr|oui|vraie?|sí|si|verdader[oa]|correct[oa]|sim|vero|да"
_NO = "no|false|incorrect|wrong|nein|falsch|unwahr|non|faux|fausse|fals[oa]|incorrect[oa]|não|нет"
_TICKS, _CROSSES = "✓✔✅☑🗸", "✗✘❌✕☒✖"
_IS_VERDICT = re.compile(f"{_YES}|{_NO}")
_JOINT = r"\s?[:=?|→–—-]{1,3}[\s*_\"'`(]{0,6}"
# It begins with one set of characters, for which Python looks much faster than for alternatives.
_HINT = re.compile(
    rf"[:=?|→–—{_TICKS}{_CROSSES}☐\[-](?:(?<=[:=?|→–—-])[:=?|→–—\s*_\"'`(-]{{0,9}}(?:{_YES}|{_NO}|\d[\d.]*%?)(?!\w)"
    rf"|(?<=[{_TICKS}{_CROSSES}☐])|(?<=\[)[ xX]?\])",
    re.IGNORECASE,
)
# Behind an option: "Neutral: yes", "| neutral | yes |", "neutral ✓", but not "Neutral: no evidence for it".
_BEHIND = re.compile(
    rf"[)\]*_\"'`.]{{0,4}}(?:{_JOINT}(?:(?P<yes>{_YES})|(?P<no>{_NO})|(?P<share>\d{{1,3}}(?:\.\d+)?\s?%?))(?!\w)"
    rf"(?=[\s*_\"'`)]{{0,4}}(?:[.,;:!?|\]}}(–—{_TICKS}{_CROSSES}\n-]|\Z))|(?:{_JOINT}"
    rf"|\s{{0,2}})(?:(?P<tick>[{_TICKS}])|(?P<cross>[{_CROSSES}])))"
)
# Before an option: a box with or without a cross.
_BOX = re.compile(r"(?:(?P<yes>\[[x✓✔]\]|☑)|(?P<no>\[\s?\]|☐))\s{0,3}(?:\(?[a-z]\)\s)?[*_\"'`]{0,3}$")
_LETTER = re.compile(rf"(?:^|[\n|,;.{_TICKS}{_CROSSES}])[\s\"'*_(\[{{•-]{{0,6}}([a-z])(?![\w'’])")


@dataclass(frozen=True)
class Verdicts:
    """What a text says of its options.

    Attributes:
        right: those that have a yes, or a share such as 0.7.
        settled: whether no option is named behind these.
    """

    right: tuple[str, ...]
    settled: bool


def verdicts(text: str, options: Options) -> Verdicts | None:
    """The verdicts of a text on two options or more; None if it gives none, or if options are yes and no themselves."""
    if not _HINT.search(text) or any(_IS_VERDICT.fullmatch(spelling) for spelling, _ in options.by_length):
        return None
    form = lines_form(text)
    found: dict[str, str] = {}
    last = 0
    unjudged = 0
    for name, start, end in _mentions(form, options):
        box = _BOX.search(form, max(0, start - 12), start)
        behind = _BEHIND.match(form, end)
        if box or behind:
            verdict = (box or behind).lastgroup or ""  # type: ignore[union-attr]
            found[name] = {"tick": "yes", "cross": "no"}.get(verdict, verdict)
            last = max(last, end)
        else:
            unjudged = max(unjudged, start)
    if len(found) < 2:
        return None
    right = tuple(name for name, verdict in found.items() if verdict in ("yes", "share"))
    return Verdicts(right, unjudged <= last)


def _mentions(form: str, options: Options) -> Iterator[tuple[str, int, int]]:
    """Where a text names options, by their spellings or, at the beginning of a part of it, by their letters."""
    blanked = form
    for spelling, option in options.by_length:
        if option.is_exact or spelling not in blanked:
            continue
        for start in places(blanked, spelling):
            end = start + len(spelling)
            yield option.name, start, end
            blanked = f"{blanked[:start]}{chr(0) * len(spelling)}{blanked[end:]}"
    if all(len(spelling) > 1 for spelling, _ in options.by_length):
        for letter in _LETTER.finditer(blanked):
            place = ord(letter[1]) - ord("a")
            if place < len(options) and _BEHIND.match(form, letter.end()):
                yield options.items[place].name, letter.start(1), letter.end()
