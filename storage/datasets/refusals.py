"""Texts that say that there is no answer: "I cannot tell", "The answer is unknown". Numbers in them answer nothing."""

import re

_CANNOT = r"(?:cannot|can['’]t|can not|could not|couldn['’]t)"
_FIND = r"(?:tell|know|say|determine|answer|solve|calculate|compute)"
_FOUND = r"(?:answered|determined|known|solved|calculated|computed|told|inferred)"
_UNKNOWN = (
    r"(?:unknown|unclear|undetermined|indeterminate|undefined|unanswerable"
    r"|not (?:known|clear|stated|given|specified|mentioned|provided))\b"
)
# "It is unclear whether she sells them" is an aside.
_ASIDE = r"(?! (?:for sure |exactly |yet )?(?:whether|if|which|who|what|where|when|why)\b)"
_REFUSAL = re.compile(
    rf"^\W{{0,4}}N/A\b|\bI(?: am|['’]m)? (?:{_CANNOT}|unable|not able|not sure)\b"
    rf"|\bI (?:do not|don['’]t) (?:know|have|think|believe)\b|\bunable to {_FIND}\b"
    rf"|\b{_CANNOT} be (?:answered|determined|known|solved|calculated)\b"
    rf"|\b(?:not enough|insufficient) (?:information|data)\b|\bimpossible to {_FIND}\b",
    re.IGNORECASE,
)
# What may also be an aside to a result that is calculated before: "We cannot tell where the other fish are".
_DOUBT = re.compile(
    rf"\b{_CANNOT} (?:be {_FOUND}\b|{_FIND}\b{_ASIDE})|\bno way (?:to|of) (?:{_FIND}|telling|knowing|saying)\b"
    rf"|\b(?:it is|it['’]s|it remains) {_UNKNOWN}{_ASIDE}"
    r"|\b(?:question|text|problem|passage|story) (?:does not|doesn['’]t) (?:say|state|tell|specify|mention|give)\b",
    re.IGNORECASE,
)
_NOTHING = re.compile(
    rf"[\s*_\"'(:]{{0,8}}(?:{_UNKNOWN}|N/?A\b|n\.a\.|{_CANNOT} be {_FOUND}\b|impossible to {_FIND}\b)", re.IGNORECASE
)


def refuses(sentence: str, calculated: bool) -> bool:
    """Whether a sentence says that its writer has no answer: "I cannot answer this; my knowledge ends in 2023".

    Args:
        calculated: whether the text calculates a result; doubts are then asides to it.
    """
    return _REFUSAL.search(sentence) is not None or (not calculated and _DOUBT.search(sentence) is not None)


def names_nothing(said: str) -> bool:
    """Whether an announced answer is that there is none: "unknown; 12 may come", "N/A"."""
    return _NOTHING.match(said) is not None
