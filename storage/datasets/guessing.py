"""Guesses from a file's columns what is the question, the choices, the label, the answer kind and the split.

Every guess is a text in the form in which a person would give it, with its reason. What a person gave goes before, and
later guesses build on earlier ones. Names decide first; the values only where no name does. Where two columns would do
equally well nothing is guessed: the error lists them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from storage.datasets.choices import read_choices
from storage.datasets.definition import LABEL_SETS
from storage.datasets.file_columns import CHOICES, Column, FileColumns
from storage.datasets.label_columns import classes, counted_classes, counted_in_sets, kind_of, rare
from storage.datasets.label_sets import labels_in
from storage.datasets.layout import NO_LABEL
from storage.errors import BadFile, UnknownName, UsageError

NONE = "none"
"""What a person writes where a file has no such column."""

_QUESTIONS = (
    "question", "frage", "query", "prompt", "input", "problem", "ticket", "message", "nachricht", "anfrage", "request",
    "text", "body", "beschreibung", "description", "content", "inhalt", "sentence", "satz", "review", "document",
    "dokument", "comment", "kommentar", "subject", "betreff", "title", "titel",
)  # fmt: skip
# Columns that make a question together, in this order.
_PAIRS = (
    (("premise", "sentence1"), ("hypothesis", "sentence2")),
    (("passage", "context", "document", "article", "kontext", "text"), ("question", "query", "claim", "frage")),
    (
        ("subject", "title", "headline", "betreff", "titel"),
        (
            "body",
            "description",
            "message",
            "text",
            "content",
            "details",
            "beschreibung",
            "nachricht",
            "inhalt",
            "paragraphs",
            "absätze",
        ),
    ),
)
_LABELS = (
    "label", "goldlabel", "gold", "answerkey", "correctanswer", "correct", "groundtruth", "target", "class", "klasse",
    "labels", "expected", "answer", "antwort", "solution", "lösung", "ergebnis", "result",
)  # fmt: skip
# Names of classes: a file may well have several of these.
_CLASSES = (
    "category", "kategorie", "priority", "priorität", "prioritaet", "urgency", "dringlichkeit", "severity", "intent",
    "sentiment", "stimmung", "topic", "thema", "queue", "department", "abteilung", "team", "tag", "type", "typ", "art",
    "status", "rating", "score", "stars", "sterne", "bewertung", "verdict", "output", "categories", "kategorien",
    "topics", "themen", "tags", "klassen", "classes", "intents",
)  # fmt: skip
_CHOICE_COLUMN = re.compile(
    r"(option|choice|answer|antwort|opt|auswahl|ending|candidate|)[\s_.-]*([a-j]|\d{1,2})", re.IGNORECASE
)
_FLAGS = ("0", "1", "0.0", "1.0", "true", "false", "yes", "no", "ja", "nein", "x", "y", "n")
_SPLITS = ("split", "set", "subset", "partition", "part", "teil", "datasplit")
PARTS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing", "eval"),
}
"""Part of a distillation -> what files call it."""

KINDS = ("number", "choice", "label", LABEL_SETS)


@dataclass(frozen=True)
class Guess:
    """A guess, as a person would give it.

    Attributes:
        value: the guess.
        why: what speaks for it.
        doubt: what a person should look at, in a sentence; empty if nothing.
    """

    value: str
    why: str
    doubt: str = ""


Chosen = Mapping[str, str]  # step -> what was given or guessed before


def guess_split(file: FileColumns, chosen: Chosen) -> Guess:  # noqa: ARG001 - one signature for all
    """The column that says which split a row belongs to."""
    known = {word for words in PARTS.values() for word in words}
    found = [column for column in file.columns.values() if column.values and not column.many
             and {value.casefold() for value in column.values} <= known]  # fmt: skip
    found.sort(key=lambda column: column.key not in _SPLITS)
    if found and any(value.casefold() in PARTS["train"] for value in found[0].values):
        return Guess(found[0].name, f"it says {', '.join(found[0].values)}")
    return Guess(NONE, "no column says train or test")


def guess_choices(file: FileColumns, chosen: Chosen) -> Guess:  # noqa: ARG001
    """The column or columns with the choices."""
    doubt = ""
    for column in file.columns.values():
        if column.key not in CHOICES or not column.filled:
            continue
        try:
            for row in file.first:
                read_choices(row.get(column.name))
        except BadFile as error:
            doubt = (
                f"{column.name} may be the choices, but cannot be read as such: {error}. Layouts that can be are in "
                "docs/datasets.md; the simplest is red|green|blue."
            )
            continue
        return Guess(column.name, "its name")
    groups: dict[str, list[tuple[str, str]]] = {}
    for name in file.columns:
        match = _CHOICE_COLUMN.fullmatch(name)
        if match:
            groups.setdefault(match[1].casefold(), []).append((match[2].casefold(), name))
    for shared, members in groups.items():
        names = [suffix for suffix, _ in members]
        first = names[0]
        expected = ([chr(ord("a") + place) for place in range(len(names))] if first == "a"
                    else [str(int(first) + place) for place in range(len(names))] if first in "01" else [])  # fmt: skip
        # Bare letters mean something else often enough: only A, B, C and on.
        bare = not shared and (len(names) < 3 or not all(name.isupper() for _, name in members))
        if names == expected and len(names) > 1 and not bare:
            return Guess(joined([name for _, name in members]), "a column for each choice")
    return Guess(NONE, "no column holds choices", doubt)


def guess_question(file: FileColumns, chosen: Chosen) -> Guess:
    """The column or columns that make the question."""
    taken = {_split(file, chosen), chosen.get("label"), *columns_in(file, _choices(file, chosen))}
    free = [column for column in file.columns.values() if column.name not in taken
            and (column.is_text or (column.is_passage and kind_of(column) is None))]  # fmt: skip
    full = [column for column in free if column.filled == file.rows]
    for firsts, seconds in _PAIRS:
        first, second = _texts_called(full, firsts), _texts_called(full, seconds)
        if first and second and first != second:
            return Guess(joined([first.name, second.name]), "their names")
    named = _texts_called(free, _QUESTIONS)
    if named:
        return Guess(named.name, "its name")
    texts = sorted((column for column in free if column.key not in _LABELS),
                   key=lambda column: (column.is_name, -column.mean))  # fmt: skip
    if not texts:
        raise UsageError(
            f"No column of {file.path} holds texts to ask about; name one with --question. {_listed(file)}"
        )
    return Guess(texts[0].name, f"the longest texts, {texts[0].mean:,.0f} characters on average")


def guess_label(file: FileColumns, chosen: Chosen) -> Guess:
    """The column with the gold label."""
    asked = [*columns_in(file, chosen["question"]), *columns_in(file, chosen["choices"])]
    taken = {_split(file, chosen), *asked}
    free = [column for column in file.columns.values() if column.name not in taken and column.filled]
    named = _called(free, _LABELS)
    if named:
        return Guess(named.name, "its name")
    why = "its name"
    like = [column for column in free if column.key in _CLASSES and len(column.values) > 1]
    if not like:
        like = [
            column for column in free if _last_word(column) in _CLASSES and kind_of(column) in ("label", LABEL_SETS)
        ]
    if not like:
        like = [column for column in free if column.mean <= 40 and kind_of(column) in ("label", LABEL_SETS)
                and len(column.values) > 1]  # fmt: skip
        why = f"{len(classes(like[0]))} values that repeat" if like else ""
    if len(like) == 1:
        return Guess(like[0].name, why)
    lists = [column.name for column in free if column.nested and kind_of(column) is None]
    flags = len(like) > 1 and all(value in _FLAGS for column in like for value in map(str.casefold, column.values))
    raise UsageError(
        (f"Several columns of {file.path} could be the label: {', '.join(column.name for column in like)}." if like
         else f"No column of {file.path} looks like a label. {_listed(file)}")
        + (f" Lists, as in {', '.join(lists)}, are none." if lists and not like else "")
        + (" If each says whether one label holds, make one column of them, such as: billing, outage." if flags else "")
        + f" Name one with --label, or --label {NONE} where the questions have no labels."
    )  # fmt: skip


def guess_answers(file: FileColumns, chosen: Chosen) -> Guess:
    """The answer kind: number, choice, label or labels."""
    if chosen["choices"] != NONE:
        return Guess("choice", "there are choices")
    if chosen["label"] == NONE:
        raise UsageError(f"Without labels {file.path} does not tell what answers are; say --answers number or label.")
    column = file.columns[chosen["label"]]
    kind = kind_of(column)
    if kind == "number":
        return Guess("number", f"every {column.name} is a number")
    if kind == "label":
        joined_up = next((value for value in column.values if len(labels_in(value)) > 1), None)
        doubt = f"{joined_up!r} is taken as one class; if these are several labels, say --answers labels."
        return Guess("label", f"{len(classes(column))} values of {column.name} that repeat", doubt if joined_up else "")
    if kind == LABEL_SETS or column.nested:
        what = "lists" if column.nested else "several labels in a cell"
        return Guess(LABEL_SETS, f"{column.name} holds {what}")
    what = "texts that are neither numbers nor a few classes"
    example = next(iter(column.values), "")
    raise UsageError(
        f"{column.name} of {file.path} holds {what}" + (f", such as {example[:60]!r}" if example else "") + ". "
        "Name another column with --label, or the kind with --answers (number, choice, label, labels); any other kind "
        "needs a parser of your own: docs/datasets.md."
    )


def guess_labels(file: FileColumns, chosen: Chosen) -> Guess:
    """The classes, most frequent first, or numbers in their order."""
    if chosen["answers"] not in ("label", LABEL_SETS):
        return Guess(NONE, "answers are no classes")
    if chosen["label"] == NONE:
        raise UsageError("Without a label column, list the classes: --labels low,high")
    several = chosen["answers"] == LABEL_SETS
    column = file.columns[chosen["label"]]
    found = counted_in_sets(file, column.name) if several else counted_classes(column)
    if len(found) < 2:
        raise UsageError(f"{column.name} of {file.path} has one value only; list the classes: --labels low,high")
    counts = list(found.values())
    often = f"{', '.join(map(str, counts))} times" if len(counts) <= 8 else f"{max(counts)} to {min(counts)} times each"
    return Guess(joined(list(found)), f"all that {column.name} holds: {often}", rare(found))


def guess_choice_labels(file: FileColumns, chosen: Chosen) -> Guess:
    """What the label column calls the choices, where these are numbers that count them."""
    if chosen["answers"] != "choice" or chosen["label"] == NONE:
        return Guess(NONE, "")
    label, columns = file.columns[chosen["label"]], columns_in(file, chosen["choices"])
    values = [value for value in label.values if value not in NO_LABEL]
    if not values or not all(re.fullmatch(r"\d{1,2}(\.0)?", value) for value in values):
        return Guess(NONE, "the label names them by letter or text")
    if len(columns) > 1 and "0" not in values:
        return Guess(NONE, "the label names their columns")
    ways = {"text": True, "0": True, "1": True}  # a way stays if every row can be read in it
    most = len(columns)
    for row in file.read():
        value = str(row.get(label.name)).removesuffix(".0")
        if not value.isdecimal():
            continue
        if len(columns) == 1:
            choices = read_choices(row.get(columns[0]))
            if choices.names:
                return Guess(NONE, "the choices have names")
            most = max(most, len(choices.texts))
            ways["text"] &= value in choices.texts
        counted = len(choices.texts) if len(columns) == 1 else most
        ways["0"] &= int(value) < counted
        ways["1"] &= 1 <= int(value) <= counted
    if ways["text"] and len(columns) == 1:
        return Guess(NONE, "the label names them by text")
    if ways["0"] and ways["1"]:
        raise UsageError(
            f"{label.name} of {file.path} counts the {most} choices and does not tell whether the first is 0 or 1: say "
            f"--choice-labels {_counted(0, most)} or {_counted(1, most)}."
        )
    if not ways["0"] and not ways["1"]:
        return Guess(NONE, "the label does not count them")
    start = 0 if ways["0"] else 1
    return Guess(_counted(start, most), f"{label.name} counts them from {start}")


STEPS: dict[str, Callable[[FileColumns, Chosen], Guess]] = {
    "question": guess_question,
    "choices": guess_choices,
    "label": guess_label,
    "answers": guess_answers,
    "labels": guess_labels,
    "choice-labels": guess_choice_labels,
    "split": guess_split,
}
"""What is guessed, in this order."""


def check_given(file: FileColumns, step: str, value: str) -> None:
    """Checks what a person gave for one of `STEPS`.

    Raises:
        UnknownName: it names a column that the file lacks, or an answer kind that does not exist.
        UsageError: it is no list of two or more, where one is needed.
    """
    option = f"--{step}"
    if step == "answers":
        if value not in KINDS:
            raise UnknownName(f"value of {option}", value, KINDS)
    elif step in ("labels", "choice-labels"):
        if value != NONE and len(listed(value)) < 2:
            raise UsageError(f"{option} takes at least two, separated by commas, not {value!r}.")
    elif value != NONE or step == "question":
        for name in columns_in(file, value):
            if name not in file.columns:
                raise UnknownName(f"column of {option}", name, file.columns)


def columns_in(file: FileColumns, value: str) -> list[str]:
    """The columns that a person named: one, several separated by commas, or those in the braces of a template."""
    if value in file.columns:
        return [value]
    return re.findall(r"\{([^{}]*)\}", value) if "{" in value else listed(value)


def listed(value: str) -> list[str]:
    """What stands between commas; between "|" where there is one, for names with commas in them."""
    return [item.strip() for item in value.split("|" if "|" in value else ",") if item.strip()]


def joined(items: list[str]) -> str:
    """The list as `listed` reads it."""
    return ("|" if any("," in item for item in items) else ",").join(items)


def _called(columns: list[Column], keys: tuple[str, ...]) -> Column | None:
    """The column with the first of these names that there is."""
    return next((column for key in keys for column in columns if column.key == key), None)


def _texts_called(columns: list[Column], keys: tuple[str, ...]) -> Column | None:
    """The same for texts, whose name may only begin so: "Beschreibung des Problems"."""
    named = _called(columns, keys)
    if named:
        return named
    words = {column.name: re.split(r"[\W_]+", column.heading.casefold().strip("_ "))[0] for column in columns}
    return next((column for key in keys for column in columns if words[column.name] == key and column.mean > 20), None)


def _last_word(column: Column) -> str:
    """What a compound name ends in: "Zuständige Abteilung", ticket_type."""
    words = re.findall(r"[^\W_]+", re.sub(r"(?<=[a-zß-ÿ])(?=[A-Z])", " ", column.heading))
    return words[-1].casefold() if words else ""


def _split(file: FileColumns, chosen: Chosen) -> str:
    return chosen.get("split") or guess_split(file, chosen).value


def _choices(file: FileColumns, chosen: Chosen) -> str:
    return chosen.get("choices") or guess_choices(file, chosen).value


def _counted(start: int, count: int) -> str:
    return ",".join(str(number) for number in range(start, start + count))


def _listed(file: FileColumns) -> str:
    return f"Its columns: {', '.join(file.columns)}."
