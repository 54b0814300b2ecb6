"""Finds the answer in texts that are, or end in, a JSON object: {"reason": "...", "answer": "B"}.

Teachers that are asked for JSON fence it, break it off, or write it with Python's quotes. So the fields are looked for
one by one and the object as a whole is never parsed.
"""

import json
import re
from dataclasses import dataclass

_QUOTED = r"\"(?P<double>(?:[^\"\\]|\\.){0,4000})\"|'(?P<single>(?:[^'\\]|\\.){0,4000})'"
_ANSWER = re.compile(
    r"[\"'](?:(?:final|correct|best|predicted|selected|my)[_ -]?)?(?:answers?|choice|option|labels?|prediction)"
    rf"(?:[_ -]?(?:letter|choice|key|value|label|text))?[\"']\s{{0,4}}:\s{{0,4}}(?:{_QUOTED}"
    r"|(?P<list>\[[^\[\]{}]{0,200}\]|\([^()\[\]{}]{1,200}\))|(?P<nested>\{[^{}]{0,400}\}|\[[\s\[{][^\n]{0,400}\])"
    r"|(?P<bare>-?\d{1,3}(?:,\d{3})+(?!\d|,\d)(?:\.\d+)?"
    r"|[^\s,\"'{}\[\]](?:[^,\"'{}\[\]\n]{0,58}[^\s,\"'{}\[\]])?(?:, ?-?\d+(?=\s{0,4}[,}]))?))",
    re.IGNORECASE,
)
_EXPLANATION = re.compile(
    rf"[\"'](?:reason|reasons|reasoning|explanation|rationale|thought|thoughts|analysis|justification"
    rf"|why)[\"']\s{{0,4}}:\s{{0,4}}(?:{_QUOTED})",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_CONFIDENCE = re.compile(
    r",?\s{0,8}[\"'](?:confidence|score|probability|certainty)[\"']\s{0,4}:\s{0,4}[\"']?[\d.]{1,20}%?[\"']?"
)
_WITHOUT_SIGNS = str.maketrans("{}[]\"'", "      ")
_OPENING = re.compile(r"(?:```\w{0,8}\s{0,4})?$")
_CLOSING = re.compile(r"[^{}]{0,4000}\}\s{0,4}(?:```)?")


@dataclass(frozen=True)
class JsonAnswer:
    """An answer field of an object in a text.

    Attributes:
        start, end: the object with its fence.
        said: the field's value as text; of a list, its values with commas between them; of an object, its fields. None
            if it is null.
        explanation: the value of the field that explains; "" if there is none.
    """

    start: int
    end: int
    said: str | None
    explanation: str


def json_answers(text: str, limit: int) -> list[JsonAnswer]:
    """The answer fields of a text, in order; at most the last `limit`."""
    if ":" not in text or "{" not in text:
        return []
    found = []
    for match in list(_ANSWER.finditer(text))[-limit:]:
        said = _value(match)
        start = text.rfind("{", 0, match.start())
        if start < 0:
            continue
        fence = _OPENING.search(text, max(0, start - 16), start)
        closing = _CLOSING.match(text, match.end())
        end = closing.end() if closing else len(text)
        explanation = _EXPLANATION.search(text, start, end)
        found.append(
            JsonAnswer(fence.start() if fence else start, end, said, (_value(explanation) or "") if explanation else "")
        )
    return found


def _value(match: re.Match[str]) -> str | None:
    fields = match.groupdict()
    if fields["double"] is not None:
        return _unescaped(fields["double"])
    if fields["single"] is not None:
        return fields["single"].replace("\\'", "'")
    if fields.get("list") is not None:
        items = fields["list"].strip("[]() \n").replace('"', "").replace("'", "")
        return re.sub(r",\s*", ", ", items) or "[]"
    if fields.get("nested") is not None:
        return " ".join(_CONFIDENCE.sub("", fields["nested"]).translate(_WITHOUT_SIGNS).split()).replace(" :", ":")
    bare = fields["bare"]
    if bare.lower() in ("null", "none"):
        return None
    return bare if _THOUSANDS.fullmatch(bare) else bare.replace(",", ", ")


def _unescaped(quoted: str) -> str:
    try:
        return str(json.loads(f'"{quoted}"', strict=False))
    except ValueError:  # a \ that begins no JSON escape, such as LaTeX's \frac
        return quoted
