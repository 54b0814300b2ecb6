"""Reads the choice or class label that a sampled text settles on, in its canonical spelling. See `parsing.py`."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from storage.datasets.answering_part import answering_part, plain_characters
from storage.datasets.definition import Parsed
from storage.datasets.negation import affirmed, is_denied, is_rejected, is_talked_about, turned
from storage.datasets.numbers_in_text import normalise_number
from storage.datasets.spellings import (
    Option,
    Options,
    choice_options,
    key,
    leading_option,
    leads_a_list,
    leads_denied,
    mentioned,
    single_spaced,
    spelled_exactly,
    unwrapped,
    with_signs,
)
from storage.datasets.statements import (
    DENIED,
    EMPTY_TEXT,
    NO_ANSWER,
    NULL,
    SEVERAL_ANSWERS,
    UNFINISHED_THOUGHT,
    by_trust,
    find_statements,
    rationale_of,
    split_sentences,
)
from storage.datasets.verdicts import verdicts

_options_of = lru_cache(maxsize=1024)(choice_options)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_AFFIRMATIVES = ("true", "yes")


def normalise_choice(answer: str, choices: Sequence[str]) -> str | None:
    """The choice that an answer names by its text or letter, in the spelling in which it is first listed.

    A choice's text counts before its letter, so that the choice "a" is never mistaken for the first one. Without
    choices, the answer itself with single spaces.
    """
    if not choices:
        return single_spaced(answer) or None
    options = _options_of(tuple(choices))
    spelled = spelled_exactly(answer, options)
    return spelled if spelled is not None else _named_by(plain_characters(answer), options, announced=False)[0]


def parse_choice(text: str, choices: Sequence[str]) -> Parsed:
    """Reads the choice that a sampled text settles on."""
    return _parse_option(text, _options_of(tuple(choices)))


class LabelReader:
    """Parser and normaliser for a fixed set of class labels.

    Args:
        labels: the labels as stored, in the order of integer codes ("0" is the first, but false and no are never 1) and
            of letters in texts ("(a)" is the first). Where a label is a number itself, there are no codes.
        synonyms: label -> other words for it, anywhere in a text ("contradicts"); numbers only as a whole answer.
        short_answers: label -> words that mean it only if they are the whole announced answer ("yes").

    Raises:
        ValueError: a word means two labels.
    """

    def __init__(
        self,
        labels: Sequence[str],
        synonyms: Mapping[str, Sequence[str]] | None = None,
        short_answers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.labels = tuple(labels)
        options = [
            Option(label, tuple(dict.fromkeys(_together(map(key, (label, *_words((synonyms or {}).get(label, ()))))))))
            for label in self.labels
        ]
        self._options = Options(options, negatable=True)
        self._exact: dict[str, str] = {}
        for option in options:
            more = (*(synonyms or {}).get(option.name, ()), *(short_answers or {}).get(option.name, ()))
            for word in (*option.keys, *map(key, more)):
                if self._exact.setdefault(word, option.name) != option.name:
                    raise ValueError(f"{word!r} means both {self._exact[word]!r} and {option.name!r}")
        if not any(_NUMBER.fullmatch(word) for word in self._exact):  # with labels 1 to 5, 0 is none of them
            for code, name in enumerate(_by_code(self.labels)):
                self._exact[str(code)] = name

    def normalise(self, answer: str, choices: Sequence[str] = ()) -> str | None:  # noqa: ARG002 - one signature for all
        """The label that an answer spells out, abbreviates or gives as an integer code; None if there is none."""
        word = key(plain_characters(answer))
        return self._exact.get(word) or self._exact.get(word.removesuffix(".0"))

    def mentioned(self, text: str) -> set[str]:
        """The labels that a text names and does not deny."""
        return {name for name, denied in mentioned(text, self._options, is_denied).items() if not denied}

    def parse(self, text: str, choices: Sequence[str] = ()) -> Parsed:  # noqa: ARG002
        """Reads the label that a sampled text settles on."""
        return _parse_option(text, self._options, self._exact)


def _by_code(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The labels in the order of their codes: as listed, but 1 never means false or no."""
    return labels[::-1] if len(labels) == 2 and labels[0].casefold() in _AFFIRMATIVES else labels


def _parse_option(text: str, options: Options, exact: Mapping[str, str] | None = None) -> Parsed:
    part = answering_part(text)
    if part is None:
        return Parsed(text.strip(), None, UNFINISHED_THOUGHT)
    if not part.strip():
        return Parsed("", None, EMPTY_TEXT)
    plain = plain_characters(part)
    statements = find_statements(plain)
    rationale = rationale_of(part, statements)
    denied = None
    for statement in by_trust(statements):
        if statement.said == NULL:
            return Parsed(rationale, None, NO_ANSWER)
        name, reason = (exact or {}).get(key(statement.said)), None
        if name is None:
            name, reason = _named_by(statement.said, options, only_letters=statement.only_letters)
        if name is not None or reason == SEVERAL_ANSWERS:  # "So the answer is either (a) pond or (e) aquarium."
            return Parsed(rationale, name, reason)
        if reason == DENIED and denied is None:
            denied = statement
    judged = verdicts(plain, options)
    if judged is not None and judged.settled:
        return Parsed(rationale, *_only(judged.right))
    # A bare answer ("(b) homely", "neutral"), or one in the first line with the reasons below; not the choices listed.
    first_line, _, rest = plain.strip().partition("\n")
    name = spelled_exactly(first_line, options) or _named_by(first_line, options, announced=False)[0]
    if name is not None and not _LETTER.match(rest.strip()):
        return Parsed(rationale if rest.strip() else "", name, None)
    name, reason = _concluded(plain[denied.end :] if denied else plain, options)
    return Parsed(rationale, name, None if name is not None else DENIED if denied else reason)


def _only(names: Sequence[str]) -> tuple[str | None, str | None]:
    """The only one of the options that a text says yes to; else None and the reason."""
    if len(names) == 1:
        return names[0], None
    return None, SEVERAL_ANSWERS if names else DENIED


def _concluded(text: str, options: Options) -> tuple[str | None, str]:
    """The option named by the last sentence that names any, if it names only one; else the reason.

    A letter in brackets counts before words: "Only (b) fits, the park is too small".
    """
    behind = ""
    for sentence in reversed(split_sentences(with_signs(text, options))):
        is_denied_question, behind = sentence.rstrip().endswith("?") and _SAYS_NO.match(behind), sentence
        if is_denied_question and mentioned(sentence, options, None):
            return None, DENIED  # "Urgent? No."
        turn = turned(sentence)
        name = _named_by(turn, options)[0] if turn is not None else None
        if name is not None:
            return name, ""
        names = _lettered(sentence, options)
        if len(names) != 1:
            found = mentioned(sentence, options, is_denied if options.negatable else is_rejected)
            if found and all(found.values()):
                return None, DENIED
            # Of choices, the reason why one is rejected may name another: "fleas are out, as they are no feeling".
            names = [name for name, denied in found.items() if not (denied and options.negatable)]
        if names:
            return (names[0], "") if len(names) == 1 else (None, SEVERAL_ANSWERS)
    return None, NO_ANSWER


# "(c)", "c)", "c.", "[C]", "choice (c)", "Answer: c".
_LETTER = re.compile(r"\**[(\[]\**([A-Za-z])\**[)\]]|([A-Za-z])\**[).:](?=\W|$)|([A-Za-z])(?=\W*$)")
# A bare letter with words behind it, "B because ...", must be a capital; "A" and "I" are words unless a comma follows.
_CAPITAL = re.compile(
    r"\**([A-Z])\**(?=\s?[,;]|\s?[-–—](?=\s)|\s(?:because|since|as|for|is|with|not)\b|\s\()|\**([B-HJ-Z])\**(?=\s)"
    r"|([A-Z])(?=[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3])"
)
_BRACKETED = re.compile(r"[(\[]\**([A-Za-z])\**[)\]]")
_BRACKETED_LIST = re.compile(r"\([A-Za-z]\)(?:,? (?:and|or) |, )\([A-Za-z]\)")
# "A, B, or C", "B or C", "B/C", "A through E".
_LETTER_LIST = re.compile(
    r"([A-Z])\**(?:(?:\s?[,/&、和或与與と]\s?|\s)(?:(?:and|or|and/or|through|to)\s)?\**(?:[A-Z])\b(?!['’.]\w))+(?!\w)"
)
_SAYS_NO = re.compile(r"[\W_]{0,4}(?:no|nein|non|não|нет)(?!\w)", re.IGNORECASE)
_IS_RIGHT = re.compile(
    r"[^.;\n]{0,60}?\s(?:is|must be|would be|seems|seems to be|ist|est|es)\s(?:(?:therefore|thus|clearly"
    r"|likely) )?(?:the |die |la )?(?:only |most |bonne )?"
    r"(?:correct|right|best|true|likely|richtig|richtige|bonne|correcta)\b"
)
_FILLER = re.compile(
    r"(?:\W{0,5}(?:\b(?:answers?|choice|option|label|letter|number|is|are|would be|will be|to|that|it|they|the|a|an|"
    r"buchstabe|lettre|letra|opción|most likely|likely|probably|definitely|clearly|actually|therefore|thus|either"
    r"|both)\b))*",
    re.IGNORECASE,
)
_OR = re.compile(r"\s(?:or|oder|ou|o|and/or)\s(?:(?:possibly|maybe|perhaps|a|an|the|in)\s)?", re.IGNORECASE)
_OPENERS = " \t\r\n*_`\"'“”‘’:=,\\{"
# What goes before it, and dashes, points and currency signs that belong to nothing: "- (b) foo", but not "-5", "$5".
_OPENING = re.compile(rf"(?:[{re.escape(_OPENERS)}]|[-–.$](?![\w.$]))*")
_OPENING_AND_SIGNS = re.compile(rf"(?:[{re.escape(_OPENERS)}]|[-–.$](?!\.?\d))*")


def _opened(text: str, opening: re.Pattern[str] = _OPENING) -> str:
    """The text from where it says something."""
    match = opening.match(text)
    return text[match.end() :] if match else text


def _named_by(
    said: str, options: Options, announced: bool = True, only_letters: bool = False
) -> tuple[str | None, str | None]:
    """The option that an announcement names: by letter and text, by either alone, or by its only mention.

    If letter and text disagree, the text counts: teachers mix up letters, not words.

    Args:
        said: what is announced.
        announced: whether it is; otherwise only a letter counts, such as a gold label's.
        only_letters: whether words do not count.

    Returns:
        The option; or None and, if the text says so, that several are named or that one is only denied.
    """
    said = with_signs(unwrapped(said), options)
    spelled = None if only_letters else spelled_exactly(_opened(said), options)
    if spelled is not None:
        return spelled, None
    judged = verdicts(said, options) if announced else None
    if judged is not None:
        return _only(judged.right) if judged.settled else (None, SEVERAL_ANSWERS)
    names = affirmed(said)
    if announced and not names and said.strip():
        leading = None if only_letters else _leads(said, options)  # "not urgent, since ...", if that is a label
        return leading, DENIED if leading is None else None
    opened = _opened(names)
    filler = _FILLER.match(opened)
    readings = dict.fromkeys((opened, _opened(opened[filler.end() :]) if filler else opened))
    in_lines = {_leads(line, options) for line in names.split("\n")} if "\n" in names.strip() else set()
    if (
        _letters(names, len(options)) > 1
        or len(in_lines - {None}) > 1
        or any(_listed(reading, len(options)) for reading in readings)
    ):
        return None, SEVERAL_ANSWERS
    for reading in readings:
        if announced and not only_letters and leads_a_list(reading[:MAX_OPTION], options):
            return None, SEVERAL_ANSWERS
        lettered = _led_by_letter(reading, options, announced, only_letters)
        if lettered is not None:
            return lettered or None, None
        leading = _leads(reading, options) if announced and not only_letters else None
        if leading is not None:
            if leads_denied(_opened(reading[:MAX_OPTION]), options):
                return None, DENIED
            other = _OR.search(reading)
            if other and " or " not in key(leading) and _leads(reading[other.end() :], options) not in (None, leading):
                return None, SEVERAL_ANSWERS
            return leading, None
    if not announced or only_letters:
        return None, None
    found = [name for name, denied in mentioned(names, options, is_denied).items() if not denied]
    if len(found) == 1:
        return found[0], None
    return (_equal_number(names, options) if not found else None), None


def _led_by_letter(reading: str, options: Options, announced: bool, only_letters: bool) -> str | None:
    """The option with whose letter an announcement begins; "" if that option is blank, None if it begins with none."""
    letter = _LETTER.match(reading) or (_CAPITAL.match(reading) if announced else None)
    index = _letter_index(letter, len(options)) if letter else None
    if letter is None or index is None:
        return None
    if letter.re is _CAPITAL and (spelled := _leads(reading, options)) is not None:
        return spelled  # "B vitamins"
    behind = None if only_letters else _leads(reading[letter.end() :].lstrip(" )]*"), options)
    if behind is None and is_talked_about(reading, letter.end()):
        return None
    return behind or options.items[index].name


def _leads(said: str, options: Options) -> str | None:
    """The option with whose spelling the text begins, signs and all."""
    said = said[:MAX_OPTION]
    return leading_option(_opened(said), options) or leading_option(_opened(said, _OPENING_AND_SIGNS), options)


MAX_OPTION = 300  # characters of an announcement that are searched for a leading option


def _equal_number(said: str, options: Options) -> str | None:
    """The only option that is the number that is said, written otherwise: "1,000" for "1000"."""
    if not any(character.isdigit() for character in said):
        return None
    number = normalise_number(_opened(said))
    same = [option.name for option in options.items if number is not None and normalise_number(option.name) == number]
    return same[0] if len(set(same)) == 1 else None


def _letters(said: str, count: int) -> int:
    """How many different options are named by letters in brackets."""
    return len({letter.lower() for letter in _BRACKETED.findall(said) if ord(letter.lower()) - ord("a") < count})


def _listed(said: str, count: int) -> bool:
    """Whether a text begins with several letters without brackets."""
    listed = _LETTER_LIST.match(said)
    letters = set(re.findall(r"(?<![A-Za-z])[A-Z](?![A-Za-z])", listed.group())) if listed else set()
    return len([letter for letter in letters if ord(letter) - ord("A") < count]) > 1


def _lettered(sentence: str, options: Options) -> list[str]:
    """The different options that a sentence names by a letter in brackets inside it: "only (b) fits".

    A letter that begins it only says which choice the sentence is about, "(c) is too small", unless it is said to be
    right.
    """
    if "(" not in sentence and "[" not in sentence:
        return []
    if _BRACKETED_LIST.search(sentence):
        return []  # "(a) and (e) are not relevant"
    names: dict[str, None] = {}
    lowered = sentence.lower()
    begins = len(sentence) - len(sentence.lstrip(_OPENERS + "-")) + 1
    for match in _BRACKETED.finditer(sentence):
        if match.start() < begins and not _IS_RIGHT.match(sentence, match.end()):
            continue
        index = ord(match[1].lower()) - ord("a")
        if index < len(options) and not is_denied(lowered, match.start(), match.end()):
            names[_leads(sentence[match.end() :], options) or options.items[index].name] = None
    return [name for name in names if name]


def _letter_index(letter: re.Match[str], letters: int) -> int | None:
    index = ord(next(filter(None, letter.groups())).lower()) - ord("a")
    return index if index < letters else None


def _together(spellings: Iterable[str]) -> Iterator[str]:
    """The spellings, and "noncompliant" beside "non compliant"."""
    for spelling in spellings:
        yield spelling
        if spelling.startswith("non "):
            yield f"non{spelling[4:]}"


def _words(synonyms: Sequence[str]) -> list[str]:
    """Those that are no numbers: a text is full of numbers that name no label."""
    return [word for word in synonyms if not _NUMBER.fullmatch(word.strip())]
