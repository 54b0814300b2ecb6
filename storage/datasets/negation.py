"""What a text affirms and what it denies: "(B) forest, not (C) park", "it was not formally approved".

Only the words right before or right behind a mention are looked at. Who reads an answer takes none from what is denied,
and never concludes from it that the opposite holds.
"""

import re
from collections.abc import Callable

Denies = Callable[[str, int, int, bool], bool]  # (text in lower case, start, end of a mention, "no" is an answer)

# Words of denial in the languages whose announcements are read. No \b before n't: it is the end of a word. "no" is left
# out where it is an answer itself, see `is_denied`.
_NOT = "|".join(
    (
        "not|never|non|nor|neither|unlike|without|cannot|isnt|hardly|scarcely",
        "nicht|keine?[mnrs]?|keineswegs|kaum|nie|niemals|weder|noch|ohne",
        "pas|ni|jamais|aucun(?:e|ement)?|nullement|sans|sauf",
        "nunca|jamás|tampoco|nada|sin|salvo|nem|não|mai|senza|niet|geen|inte|ikke|никогда|не",
    )
)
_WRONG_WORDS = "|".join(
    (
        "wrong|incorrect|false|untrue|invalid|impossible|unlikely|out",
        "ruled out|excluded|eliminated|rejected|dismissed|discarded",
        "falsch|ausgeschlossen|unrichtig|fausse?s?|faux|exclue?s?",
        "incorrect(?:es?|[oa]s?)|fals[oa]s?|erróne[oa]s?|errad[oa]s?|sbagliat[oa]",
    )
)
_WRONG = rf"(?:{_WRONG_WORDS})\b"
_IS = "(?:is|are|was|were|ist|sind|wäre|est|sont|es|son|é|è|zijn)"
_AUXILIARY = "(?:is|are|was|were|would|can|could|does|do|did|has|will|should|must)"
# "ist nicht", "n'est pas", "no es", "cannot be", "isn't".
_IS_NOT = (
    rf"(?:{_AUXILIARY}(?:n't|\s{{1,2}}not)\b|can(?:'t|not)\b"
    r"|(?:ist|sind|wäre|kann|is|är|er)\s(?:nicht|niet|inte|ikke|keine?)\b"
    r"|n'(?:est|était|a)\s(?:pas|ni)\b|(?:no|não|non)\s(?:es|son|é|è|sería|puede|parece)\b)"
)
_IS_WRONG = (
    rf"(?:{_IS}|can be|would be|must be|seems?)\s{{1,2}}(?:(?:clearly|definitely|also|therefore|thus) )?"
    rf"(?:(?:the|a|an|die|la|une)\s)?{_WRONG}"
)
# ": no", "✗" behind a mention, but not ": no evidence for it".
_SAYS_NO = (
    r"(?:\s?[:=?]{1,2}[\s*_\"']{0,4}(?:no|false|wrong|incorrect|nein|falsch|non|faux|não|нет)(?!\w)"
    r"(?=[*_\"')]{0,4}(?:[.,;:!?)|\]}\n]|$))|\s?[✗✘❌✕✖])"
)
_NOT_IN_JAPANESE_OR_KOREAN = r"\s?(?:ではな|ではありません|じゃな|(?:이|가|은|는) 아[니닙])"
_CLOSING = r"[)\]*_\"']{0,4}"
_ANSWER = "(?:answer|choice|option|label|result|antwort|réponse|respuesta)"
_WRONG_ANSWER_IS = rf"(?:wrong|incorrect|falsche|fausse|mauvaise|incorrecta) {_ANSWER}s? (?:is|are|ist|est|es)"
_RULES_OUT = "(?:rul(?:e|es|ed|ing) out|exclud(?:e|es|ed|ing)|eliminat(?:e|es|ed|ing)|reject(?:s|ed|ing)?)"

# "All but (d) are wrong" names (d); all other sentences that begin so do not.
_ALL_BUT = re.compile(
    r"\b(?:all|everything|every(?: \w{1,10})?|each|any(?:thing)?|all (?:the|of) \w{1,12}(?: \w{1,10})?"
    r"|alles?|alle \w{1,12}|tout(?:es)?|todas?|todos?)(?: \w{1,10})?"
    r" (?:but|except|besides|other than|apart from|au(?:ß|ss)er|bis auf|sauf|menos|excepto|salvo)(?: for)?"
    r"\s(?:the |option |choice )?[\W_]{0,3}$"
)
_ARE_WRONG = re.compile(rf"[^.;\n]{{0,30}}?(?:\b{_IS}\s{_WRONG}|\b{_IS_NOT}|\bcan be {_WRONG})")
# Up to two words may stand between the denial and the mention, but none that begins another thought.
_NO_TURN = r"(?!(?:but|only|just|merely|simply|so|because|is|are|doubt|question|and|or|sondern|mais|sino|mas)\b)"
_NOT_BEFORE = re.compile(
    rf"(?:(?:(?<!\w)(?:{_NOT})|\wn't|rather than|instead of|opposed to|other than|anything but|far from|not at all"
    rf"|fail(?:s|ing)? to|by no means|{_RULES_OUT}|(?:dismiss(?:es|ed)?|discard(?:s|ed)?)"
    rf"|(?:unlikely|impossible) to be|{_WRONG_ANSWER_IS})\s{{1,2}}(?:{_NO_TURN}[^\W\d]{{1,14}}\s{{1,2}}){{0,2}}"
    r"|(?:not (?:the case|true|clear|certain)|no (?:evidence|indication)) (?:that )?(?:\w{1,14} ){0,4}"
    r"|(?:nothing|nobody|no one|no (?:part|word|detail|fact|information|sentence|statement))"
    r" (?:(?!(?:but|other|else)\b)\w{1,14} ){0,5}"
    r"|(?:impossible|unlikely) that (?:\w{1,14} ){0,4}"
    r"|(?:do not|don't|did not|didn't) (?:think|believe|agree)(?: [\w']{1,14}){0,4} "
    r"|(?<!\w)(?:no|não) (?:(?:me|se|nos|le) )?(?:es|son|está|parece|sea|fue|era|é|foi)\s(?:\w{1,14} ){0,2}"
    r"|(?:不是|并非|並非|不属于|不屬於|并不|並不|没有|不)\s?)[\W_]{0,3}$"
)
_NO_BEFORE = re.compile(r"(?<!\w)no\s{1,2}[\W_]{0,3}$")
_NOT_BEHIND = re.compile(
    rf"{_CLOSING}(?:\s{{1,2}}(?:{_IS_NOT}|{_IS_WRONG}|can not\b|fails\b)|{_SAYS_NO}|{_NOT_IN_JAPANESE_OR_KOREAN})"
)
_REJECTED_BEFORE = re.compile(
    r"(?:^\W{0,6}(?:(?:so|it|it's|it is|that is|this is|das ist|es ist|c'est"
    r"|definitely|certainly|clearly|probably)\s){0,2}"
    r"(?:not|no|nicht|kein\w{0,2}|pas)\s"
    r"|\b(?:it's|it is|this is|es ist|das ist|c'est)\s(?:not|nicht|pas)\s"
    rf"|(?:{_RULES_OUT}|{_WRONG_ANSWER_IS})\s)"
    r"(?:(?:the|a|an|der|die|das|la|le|el|option|choice|answer)\s)?[\W_]{0,3}$"
)
_REJECTED_BEHIND = re.compile(
    rf"{_CLOSING}(?:\s{{1,2}}(?:{_IS_NOT}\s(?:be\s)?(?:it\b|(?:the |a |die |la )?(?:\w{{1,12}} ){{0,2}}"
    rf"(?:{_ANSWER}s?|solution|right|correct|richtig|correcta)\b)|{_IS_WRONG})|{_SAYS_NO})"
)
# What may follow a letter that is no answer but is talked about: "(a) is too small".
_TALKED_ABOUT = re.compile(
    rf"{_CLOSING}(?:\s{{1,2}}(?:{_IS}|can|could|would|isn't|wasn't|doesn't|can't|cannot|does|seems|kann|n'est|no es"
    rf"|não é|non è)(?!\w)|{_SAYS_NO}|{_NOT_IN_JAPANESE_OR_KOREAN})",
    re.IGNORECASE,
)
MAX_BEFORE = 48  # characters before a mention that are looked at

# "not 5 but 7", "weder A noch B, sondern C", "Neither A nor B; C": what counts stands behind.
_BUT = r"(?:but(?! not\b)|sondern|mais|sino|mas|ma|bensì|maar|utan)"
_LEAD = r"^\W{0,6}(?:[\w'’]{1,10}\s{1,2}){0,2}"
_NOT_BUT = re.compile(
    rf"{_LEAD}(?:(?:not|nicht|pas|no es|no|não é|non è|niet|inte)|(?:is|was|are|ca|do|does)n['’]t(?: be)?|cannot be)"
    r"\s(?!(?:only|just|merely|nur|seulement|solo|sólo)\b)[^.;\n]{1,80}?"
    rf"(?:[,;]?\s{_BUT}|[,;]\s(?:it is|it['’]s))\s(?:(?:rather|is|it is|ist|est|es)\s)?"
    rf"|{_LEAD}(?:neither|weder|ni|né)\s[^.;\n]{{1,60}}?\s(?:nor|noch|ni|né)\s[^.;,\n]{{1,60}}?"
    rf"(?:[;:–—]\s|,\s(?:so\s|{_BUT}\s)|\s{_BUT}\s)(?:rather\s|it is\s)?",
    re.IGNORECASE,
)
# Few sentences have one of these; looking for them is far cheaper than the patterns.
_HINTS = (
    *("not", "Not", "n't", "n’t", "either", "no ", "No ", "cht", "eder", "pas ", "Pas ", "ni ", "Ni ", "né ", "non "),
    *("Non ", "não", "niet", "inte ", "не", "wrong", "incorrect", "alsch", "fausse", "auvaise", "anything but"),
)
# "B, not C", "B because it is no park": what counts stands before.
_REASON = re.compile(
    r"[\s,;(–—-]{1,4}(?:and\s)?(?:not(?<!\bor not)|rather than|instead of|unlike|as opposed to|because|since"
    r"|as (?:it|they|he|she|the|this|that|a|an))\b|,\s(?:as|due to|given)\b",
    re.IGNORECASE,
)
# "not B", "definitely not B", "no es B": nothing counts.
_DENIAL = re.compile(
    r"^[\W_]{0,6}(?:(?:is|it|definitely|clearly|certainly|probably|most likely)\s)?(?:(?:"
    r"not|never|neither|nicht|niemals|kein\w{0,2}|weder|pas|ni|niet|geen|inte|ikke|не|no longer|far from"
    r"|(?:anything|everything) but|(?:is|was|are|ca|could|would)n['’]t|cannot|can not|could not)\s"
    r"|(?:no|não|nao|non|nu|ne|nie)\s(?:es|son|é|è|este|sería|são|sono|je|jest)\s|n['’](?:est|sont|était)\s)"
    r"(?!(?:only|just)\b)",
    re.IGNORECASE,
)
# A number that is denied: "not 5", "neither 5 nor 6", "5 is wrong", "5 isn't the answer".
_DENIED_NUMBER = re.compile(
    r"\b(?:not|isn't|neither|nor|nicht|weder|noch|pas|ni|не|no es|não é|non è|anything but"
    rf"|(?:cannot|can't|could not|couldn't) be|{_WRONG_ANSWER_IS})\s[*$€£]{{0,4}}\d[\d.,]*\d?"
    rf"|(?<![\w.,$€£])[*$€£]{{0,4}}\d[\d.,]*[*%]{{0,3}}\s(?:{_IS}\s(?:the\s)?{_WRONG}"
    rf"|{_IS_NOT}\s(?:be\s)?(?:the |die |la |a )?(?:final |right |richtige |bonne )?"
    rf"(?:{_ANSWER}|solution|right|correct|possible|richtig|correcta)\b)",
    re.IGNORECASE,
)


def affirmed(said: str) -> str:
    """The part of an announced answer that names it: "B, not C" -> "B", "not 5 but 7" -> "7", "not 5" -> ""."""
    turn = turned(said)
    said = said if turn is None else turn
    if _DENIAL.match(said):
        return ""
    reason = _REASON.search(said)
    if reason is not None and said[: reason.start()].strip(" \t\r\n*_:-.,$\"'"):
        return said[: reason.start()]
    return said


def turned(said: str) -> str | None:
    """What follows where a text denies one thing and affirms another: "It's not B but C" -> "C"; None elsewhere."""
    turn = _NOT_BUT.match(said) if _has_hint(said) else None
    return None if turn is None else said[turn.end() :]


def is_talked_about(text: str, end: int) -> bool:
    """Whether what follows a letter says something of it, so that the letter itself is no answer: "(a) is too far"."""
    return _TALKED_ABOUT.match(text, end, min(len(text), end + MAX_BEFORE)) is not None


def without_denied_numbers(text: str) -> str:
    """The text with its denied numbers taken out: "5 is wrong" -> ""."""
    return _DENIED_NUMBER.sub(" ", text) if _has_hint(text) else text


def _has_hint(text: str) -> bool:
    return any(hint in text for hint in _HINTS)


def is_denied(text: str, start: int, end: int, no_is_an_answer: bool = False) -> bool:
    """Whether the words around a mention deny it.

    Args:
        text: in lower case.
        start, end: the mention.
        no_is_an_answer: "no" before a mention then denies nothing.
    """
    before = text[max(0, start - MAX_BEFORE) : start]
    if _ALL_BUT.search(before):
        return _ARE_WRONG.match(text, end, min(len(text), end + MAX_BEFORE)) is None  # "all but (d) are wrong"
    if _NOT_BEFORE.search(before) or (not no_is_an_answer and _NO_BEFORE.search(before)):
        return True
    return _NOT_BEHIND.match(text, end, min(len(text), end + MAX_BEFORE)) is not None


def is_rejected(text: str, start: int, end: int, no_is_an_answer: bool = False) -> bool:
    """Whether a mention is denied to be the answer, in so many words: "forest is not the answer", "not forest".

    So it is asked of a question's choices, which themselves may be what somebody did not do. Arguments as `is_denied`.
    """
    before = text[max(0, start - MAX_BEFORE) : start]
    if _REJECTED_BEFORE.search(before) and not (no_is_an_answer and before.rstrip().endswith("no")):
        return True
    return _REJECTED_BEHIND.match(text, end, min(len(text), end + MAX_BEFORE)) is not None
