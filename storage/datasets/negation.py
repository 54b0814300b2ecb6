"""What a text affirms and what it denies: "(B) forest, not (C) park", "it was not formally approved".

Only the words right before or right behind a mention are looked at. Who reads an answer takes none from what is denied,
and never concludes from it that the opposite holds.
"""

import re

# No \b before n't: it is the end of a word. "no" is left out where it is an answer itself, see `is_denied`.
_NOT = r"(?:not|never|non|nor|neither|unlike|without|cannot|isnt|nicht|keine?[mnrs]?|pas|никогда|не)"
_NOT_BEFORE = re.compile(
    rf"(?:(?:(?<!\w){_NOT}|\wn't|rather than|instead of|opposed to|other than)\s{{1,2}}"
    r"(?:(?!but\b|only\b|just\b|merely\b|simply\b|so\b|because\b|is\b|are\b|doubt\b|question\b|and\b|or\b)[^\W\d]{1,14}\s{1,2}){0,2}"
    r"|(?:not (?:the case|true|clear|certain)|no (?:evidence|indication)) (?:that )?(?:\w{1,14} ){0,4}"
    r"|(?:不是|并非|並非|不属于|不屬於|并不|並不|没有|不)\s?)[\W_]{0,3}$"
)
_NO_BEFORE = re.compile(r"(?<!\w)no\s{1,2}[\W_]{0,3}$")
_NOT_BEHIND = re.compile(
    r"[)\]*_\"']{0,4}(?:\s{1,2}(?:(?:is|are|was|were|would|can|could|does|do|did|has)(?:n't|\s{1,2}not)\b"
    r"|(?:is|are|was|were|can be|would be)\s{1,2}(?:wrong|incorrect|ruled out|excluded|out)\b)"
    r"|(?:ではな|じゃな|(?:이|가|은|는) 아니))"
)
MAX_BEFORE = 48  # characters before a mention that are looked at

# "not 5 but 7": what counts stands behind.
_NOT_BUT = re.compile(
    r"^\W{0,6}(?:\w{1,8}\s{1,2})?(?:not|(?:is|was)n['’]t)\s[^.;\n]{1,80}?,?\s(?:but|it is|it's)\s(?:rather\s)?",
    re.IGNORECASE,
)
# "B, not C", "B because it is no park": what counts stands before.
_REASON = re.compile(
    r"[\s,;(–—-]{1,4}(?:and\s)?(?:not|rather than|instead of|unlike|as opposed to|because|since"
    r"|as (?:it|they|he|she|the|this|that|a|an))\b|,\s(?:as|due to|given)\b",
    re.IGNORECASE,
)
# "not B", "definitely not B": nothing counts.
_DENIAL = re.compile(
    r"^[\W_]{0,6}(?:(?:is|it|definitely|clearly|certainly|probably|most likely)\s)?"
    r"(?:not|never|(?:is|was)n['’]t|nicht|kein\w{0,2}|pas|не)\s"
    r"(?!only\b|just\b)",
    re.IGNORECASE,
)


def affirmed(said: str) -> str:
    """The part of an announced answer that names it: "B, not C" -> "B", "not 5 but 7" -> "7", "not 5" -> ""."""
    turn = _NOT_BUT.match(said)
    if turn is not None:
        said = said[turn.end() :]
    elif _DENIAL.match(said):
        return ""
    reason = _REASON.search(said)
    if reason is not None and said[: reason.start()].strip(" \t\r\n*_:-.,$\"'"):
        return said[: reason.start()]
    return said


def is_denied(text: str, start: int, end: int, no_is_an_answer: bool = False) -> bool:
    """Whether the words around a mention deny it.

    Args:
        text: in lower case.
        start, end: the mention.
        no_is_an_answer: "no" before a mention then denies nothing.
    """
    before = text[max(0, start - MAX_BEFORE) : start]
    if _NOT_BEFORE.search(before) or (not no_is_an_answer and _NO_BEFORE.search(before)):
        return True
    return _NOT_BEHIND.match(text, end, min(len(text), end + MAX_BEFORE)) is not None
