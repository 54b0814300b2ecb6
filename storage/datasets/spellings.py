"""The possible answers of a question, how texts spell them, and where a text mentions them.

Spellings of one answer differ in case, spaces, quotes, Markdown, end punctuation, and "-" or "_" for a space. Different
answers stay different: where two of a question's choices would share a spelling ("Polish" and "polish", ".5" and "5"),
these two are told apart exactly.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from storage.datasets.negation import Denies, is_rejected

_EDGES = " \t\r\n*_`\"'“”‘’,;:!?。，；：！？、"
_LATEX = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|textrm|mbox)\s?\{([^{}]{0,200})\}")
_MATH = re.compile(r"\$(?!\s)([^$\n]{1,80}?)(?<!\s)\$(?!\d)|\\[(\[]\s?(.{1,80}?)\s?\\[)\]]")
# "-" and "_" between letters are spaces: NOT_URGENT, not-urgent.
_JOINTS = re.compile(r"(?<=[^\W\d_])[-_]+(?=\w)|(?<=\d)[-_]+(?=[^\W\d_])|(?<=[^\W_])_+(?=[^\W_])")
_CHARACTERS = str.maketrans({"’": "'", "−": "-", "‐": "-", "‑": "-"})


@dataclass(frozen=True)
class Option:
    """A possible answer.

    Attributes:
        name: its spelling in the store.
        keys: the spellings by which texts name it, as `key` writes them; as `exact` does where `is_exact`.
        is_exact: another option differs only in what `key` leaves out.
    """

    name: str
    keys: tuple[str, ...]
    is_exact: bool = False


class Options:
    """The possible answers of a question, in order, and their spellings.

    Args:
        items: the options.
        negatable: whether a denied mention is none, anywhere in a text. So it is with labels; a question's own choices
            may be what somebody did not do: "he didn't like being ordered".
    """

    def __init__(self, items: Sequence[Option], negatable: bool) -> None:
        self.items = tuple(items)
        self.negatable = negatable
        self.by_length = sorted(
            ((spelling, option) for option in self.items for spelling in option.keys), key=lambda pair: -len(pair[0])
        )
        self.kinds = tuple({option.is_exact for option in self.items})
        self.signed = any(re.match(r"-[\w.$€£]", spelling) for spelling, _ in self.by_length)
        self.no_is_one = any("no" in option.keys for option in self.items)
        self.loose = {spelling: option.name for spelling, option in reversed(self.by_length) if not option.is_exact}
        self.strict = {spelling: option.name for spelling, option in reversed(self.by_length) if option.is_exact}

    def __len__(self) -> int:
        return len(self.items)


def single_spaced(text: str) -> str:
    """The text with single spaces."""
    return " ".join(text.split())


def exact(text: str) -> str:
    """The text in one form of Unicode, with plain quotes and minus signs, single spaces, and no LaTeX around it."""
    text = " ".join(unwrapped(text).split())
    return text if text.isascii() else unicodedata.normalize("NFC", text.translate(_CHARACTERS))


def key(text: str) -> str:
    """What spellings of one answer share: `exact` without case, quotes, Markdown, end punctuation, "-" and "_"."""
    plain = exact(text).casefold()
    stripped = plain.strip(_EDGES).rstrip(_EDGES + ".")
    while stripped[:1] == "." and not stripped[1:2].isdigit():  # ".5" keeps its point
        stripped = stripped[1:].lstrip(_EDGES)
    return _unjoined(stripped) or plain


def unwrapped(text: str) -> str:
    """The text without LaTeX's \\text{...} and its signs for formulas: "$-5$" -> "-5", "5\\%" -> "5%"."""
    if "\\" in text:
        text = _LATEX.sub(r" \1 ", text).replace("\\%", "%").replace("\\$", "$").replace("\\_", "_")
    return _MATH.sub(lambda match: match[1] or match[2], text) if "$" in text or "\\" in text else text


def choice_options(choices: Sequence[str]) -> Options:
    """One option per choice, in order; choices that differ only in spaces share the first one's spelling."""
    first: dict[str, str] = {}
    sharing: dict[str, set[str]] = {}
    for choice in choices:
        first.setdefault(exact(choice), single_spaced(choice))
        sharing.setdefault(key(choice), set()).add(exact(choice))
    options = []
    for choice in choices:
        apart = len(sharing[key(choice)]) > 1
        spelling = exact(choice) if apart else key(choice)
        options.append(Option(first[exact(choice)], (spelling,) if spelling else (), apart))
    return Options(options, negatable=False)


def spelled_exactly(said: str, options: Options) -> str | None:
    """The option whose spelling is the whole text."""
    name = options.loose.get(key(said))
    if name is None and options.strict:
        name = options.strict.get(exact(said)) or options.strict.get(exact(said).rstrip(". "))
    return name


def leading_option(said: str, options: Options) -> str | None:
    """The option with whose spelling the text begins; the longest such spelling decides."""
    leading = _leading(said, options)
    return leading[0] if leading else None


def leads_a_list(said: str, options: Options) -> bool:
    """Whether a text begins with several different options, and is nothing but these: "bank and forest"."""
    names: set[str] = set()
    for _ in range(MOST_LISTED):
        leading = _leading(said, options)
        if leading is None:
            return False
        names.add(leading[0])
        rest = leading[1]
        if len(names) > 1 and _LIST_ENDS.fullmatch(rest):
            return True
        joint = _LISTED.match(rest)
        if joint is None:
            return False
        said = rest[joint.end() :]
    return False


MOST_LISTED = 12
_LIST_ENDS = re.compile(r"[\W_]*(?:\w+[\W_]*)?")
_LISTED = re.compile(
    r"[)\]*_\"'s]{0,4}\s?(?:[,;/|&+]\s?(?:and|or|und|oder|et|ou|y|o)?|[,;]?\s?(?:and|or|as well as|und|oder|sowie|et"
    r"|ou|y|e|o)\b|[、和或与與とか])"
    r"[\s*_\"'-]{0,4}(?:(?:also|maybe|perhaps|possibly|the|a|an|die|der|das|la|le|el)\s)?(?:\(?[a-z]\)\s)?[*_\"']{0,3}",
    re.IGNORECASE,
)


def leads_denied(said: str, options: Options) -> bool:
    """Whether a text begins with an option of which it says that it is none: "urgent: no"."""
    leading = _leading(said, options)
    return leading is not None and is_rejected(f"x{leading[1]}".casefold(), 0, 1, options.no_is_one)


def _leading(said: str, options: Options) -> tuple[str, str] | None:
    """The option with whose spelling the text begins, and the rest of the text."""
    forms = {apart: _form(said, apart) for apart in options.kinds}
    for spelling, option in options.by_length:
        form = forms[option.is_exact]
        if form.startswith(spelling) and _ends(form, len(spelling), spelling):
            return option.name, form[len(spelling) :]
    return None


def mentioned(sentence: str, options: Options, denies: Denies | None) -> dict[str, bool]:
    """The different options that a sentence names, longer spellings first, and whether each of its mentions is denied.

    A mention is a whole word or its plural in s. One inside a longer mention does not count: "large house" does not
    mention "house". One that is joined to a denied one is denied too: "not a house or a large house".

    Args:
        denies: what tells whether a mention is denied, from `negation`; without it, none is.
    """
    sentence = _prefixed(sentence, options) if "-" in sentence else sentence
    forms = {apart: _form(sentence, apart) for apart in options.kinds}
    plain = dict(forms)
    found: list[tuple[int, int, Option]] = []
    for spelling, option in options.by_length:
        form = forms[option.is_exact]
        if spelling not in form:
            continue
        for start in places(form, spelling):
            found.append((start, start + len(spelling), option))
            # So that shorter spellings inside it are no mentions.
            form = f"{form[:start]}{chr(0) * len(spelling)}{form[start + len(spelling) :]}"
        forms[option.is_exact] = form
    if denies is None or not found:
        return {option.name: False for _, _, option in found}
    plain = {apart: form.casefold() if apart else form for apart, form in plain.items()}
    denied: dict[str, bool] = {}
    earlier = (0, False)
    for start, end, option in sorted(found, key=lambda mention: mention[:2]):
        form = plain[option.is_exact]
        is_denied = denies(form, start, end, options.no_is_one) or (
            earlier[1] and _JOINED.fullmatch(form[earlier[0] : start]) is not None
        )
        denied[option.name] = denied.get(option.name, True) and is_denied
        earlier = (end, is_denied)
    return denied


_PREFIXED = re.compile(r"(?<![\w-])(in|un|im|ir|dis|mis)[-‐‑](\w{1,40})", re.IGNORECASE)


def _prefixed(sentence: str, options: Options) -> str:
    """The text with "in-complete" as "incomplete", which mentions no "complete"; "in-house" stays if it is one."""

    def joined(match: re.Match[str]) -> str:
        parted = f"{match[1]} {match[2]}".casefold()
        kept = any(parted in spelling.casefold().replace("-", " ") for spelling, _ in options.by_length)
        return match.group() if kept else match[1] + match[2]

    return _PREFIXED.sub(joined, sentence)


_MINUS = re.compile(r"(?<![\d)]\s)(?<!\b[a-z]\s)\b(?:minus|negative)\s(?=[$€£]?[\d.]|[a-z]\b)", re.IGNORECASE)


def with_signs(text: str, options: Options) -> str:
    """The text with "minus 5" as "-5", where an option begins with a sign."""
    return _MINUS.sub("-", text) if options.signed else text


_JOINED = re.compile(r"\s?(?:and|or|nor|und|oder|noch|et|ou|ni|y|o|&)\s(?:(?:a|an|the|ein|eine|un|une)\s)?")


def lines_form(text: str) -> str:
    """The text in the form of `key`, line by line."""
    return "\n".join(_form(line, apart=False) for line in text.split("\n"))


def _form(text: str, apart: bool) -> str:
    return exact(text) if apart else _unjoined(exact(text).casefold())


def _unjoined(text: str) -> str:
    return _JOINTS.sub(" ", text) if "-" in text or "_" in text else text


def places(form: str, spelling: str) -> Iterator[int]:
    """Where a text, in the form of `key`, has a spelling as a word of its own."""
    position = form.find(spelling)
    while position >= 0:
        end = position + len(spelling)
        if _begins(form, position, spelling) and _ends(form, end, spelling):
            yield position
            position = form.find(spelling, end)
        else:
            position = form.find(spelling, position + 1)


_NUMBER_BEFORE = re.compile(r"(?:\d[.,:/-]|(?<![\w.])-|(?<!\d)\.)$")
_NUMBER_BEHIND = re.compile(r"[.,:/-]?\d")


def _begins(form: str, position: int, spelling: str) -> bool:
    """Whether a spelling begins a word there: "5" begins none in "3.5" or "-5", "x" none in "-x"."""
    if position == 0:
        return True
    before = form[position - 1]
    if spelling[0].isalnum() and before in "-./,:" and _NUMBER_BEFORE.search(form, max(0, position - 3), position):
        return not (spelling[0].isdigit() or (before == "-" and len(spelling) < 3))
    return not (before.isalnum() and spelling[0].isalnum()) or _is_unspaced(before) or _is_unspaced(spelling[0])


def _ends(form: str, end: int, spelling: str) -> bool:
    """Whether a spelling ends a word there, or only its plural goes on: "3" ends none in "3.7"."""
    if spelling[-1].isdigit():
        return not _NUMBER_BEHIND.match(form, end) and not form[end : end + 1].isalnum()
    rest = form[end : end + 2]
    if _is_unspaced(rest[:1]) or _is_unspaced(spelling[-1]):
        return True
    if rest[:1] == "s":
        rest = rest[1:]
    return not (rest[:1].isalnum() and spelling[-1].isalnum())


def _is_unspaced(character: str) -> bool:
    """Whether a character is of a script that puts no spaces between words, or particles behind them (Korean)."""
    return character > "\u0e00" and (
        "\u0e00" <= character <= "\u0eff"  # Thai, Lao
        or "\u1000" <= character <= "\u109f"  # Burmese
        or "\u1780" <= character <= "\u17ff"  # Khmer
        or "\u3040" <= character <= "\u30ff"  # Japanese syllables
        or "\u3400" <= character <= "\u9fff"  # Chinese characters
        or "\uac00" <= character <= "\ud7a3"  # Korean
    )
