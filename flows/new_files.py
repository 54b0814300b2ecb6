"""The two files that `qcrd init` writes: what a dataset is, and what to do with it. Comments say what to change."""

import os
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from storage.datasets.custom import RESERVED_FIELDS
from storage.datasets.definition import LABEL_SETS
from storage.datasets.file_columns import FileColumns
from storage.datasets.guessing import NONE, PARTS, columns_in, listed
from storage.datasets.label_columns import classes, decimals_of
from storage.datasets.registry import BUILT_IN
from tasks.questions.sets import Part

INSTRUCTIONS = {
    "label": 'Decide which it is: {labels}. Explain your decision in one or two sentences, then finish with "So the '
    'answer is LABEL."',
    "labels": "Decide which of these hold: {labels}. Any number of them may, or none. Explain your decision in one or "
    'two sentences, then finish with "So the answer is LABEL, LABEL.", or with "So the answer is none."',
    "number": "Answer the question with a number. Think step by step, write out every calculation, then finish with "
    '"So the answer is N."',
    "choice": 'Choose the best answer. Explain your choice in one or two sentences, then finish with "So the answer is '
    '(letter) text."',
}
COMMENT_AT = 35  # column at which comments begin
LONGEST_BEFORE_COMMENT = 60
CHARACTERS_PER_TOKEN = 3  # fewer than in English, so that other languages fit, too
CHARACTERS_PER_WORD = 6
_NUMBERED = re.compile(r"\s*\d+\s*[-.):_]\s*(?=[^\W\d])")  # "1 - Billing"
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})
TOKENS = (128, 256, 512, 1024)


@dataclass(frozen=True)
class Split:
    """Where the questions of one part are: the split's name and its file."""

    name: str
    file: str


def name_for(path: str) -> str:
    """A dataset's name, from that of its file."""
    lowered = unicodedata.normalize("NFC", Path(path).name.lower()).translate(_UMLAUTS)
    plain = unicodedata.normalize("NFKD", lowered).encode("ascii", "ignore").decode()
    stem = re.sub(r"(\.gz)?$", "", plain).partition(".")[0]
    words = [word for word in re.findall(r"[a-z0-9_]+", stem.replace("-", "_")) if word]
    name = re.sub(r"_?(train|training)$", "", "_".join(words)).strip("_")[:60] or "questions"
    return f"my-{name}" if name in BUILT_IN else name.replace("_", "-")


def splits_of(file: FileColumns, column: str, given: Mapping[Part, str | None]) -> dict[Part, Split]:
    """The parts that a file, or files beside it, hold.

    Args:
        column: the one that names the split of each row, or "none".
        given: other files, by part.
    """
    found: dict[Part, Split] = {}
    if column != NONE:
        for part, words in PARTS.items():
            for value in file.columns[column].values:
                if value.casefold() in words:
                    found.setdefault(_part(part), Split(value, file.path))
        return found
    found["train"] = Split("train", file.path)
    folder, name = Path(file.path).parent, Path(file.path).name
    for part, words in PARTS.items():
        beside = (folder / re.sub(r"(?i)(?<![a-z])train(ing)?(?![a-z])", word, name) for word in words)
        other = next((str(path) for path in beside if path.name != name and path.is_file()), None)
        path = given.get(_part(part)) or other
        if path:
            found.setdefault(_part(part), Split(part, path))
    return found


def told(splits: Mapping[Part, Split]) -> str:
    """In a sentence where the questions of each part come from."""

    def source(part: Part) -> str:
        split = splits[part]
        return split.file if len({one.file for one in splits.values()}) == len(splits) else f"split {split.name}"

    if len(splits) == 1:
        return "A fifth of the questions is the test, and a tenth of the others validates."
    test: Part = "test" if "test" in splits else "validation"
    validates = source("validation") if len(splits) == 3 else "a tenth of them"
    return f"Training questions: {source('train')}; {validates} validates, {source(test)} tests."


def dataset_text(name: str, file: FileColumns, chosen: Mapping[str, str], splits: Mapping[Part, Split]) -> str:
    """The definition of the dataset, as YAML."""
    template, fields = _question(file, chosen["question"])
    answers, label = chosen["answers"], chosen["label"]
    if label not in (NONE, "label"):
        fields["label"] = label
    choices = [] if answers != "choice" else columns_in(file, chosen["choices"])
    if choices != ["choices"] and choices:
        fields["choices"] = choices[0] if len(choices) == 1 else choices
    lines = [f"# What the questions of {Path(file.path).name} are: qcrd init guessed it from {file.rows:,} rows."]
    lines += [
        _line("name", _scalar(name)),
        _line("answers", answers, "number, choice, label, labels, or custom with a parser"),
    ]
    commas = answers == "number" and label != NONE and decimals_of(file.columns[label])[0] == "comma"
    if commas:
        lines.append(_line("decimals", "comma", "numbers are written as 1.234,5"))
    if answers in ("label", LABEL_SETS):
        labels = listed(chosen["labels"])
        lines.append(_line("labels", _flow(labels), "in the order of the codes 0, 1, ..., where a file has these"))
        lines.append(_synonyms(labels, codes(file, label)))
    if chosen["choice-labels"] != NONE and answers == "choice":
        lines.append(_line("choice_labels", _flow(listed(chosen["choice-labels"])), "what the label column calls them"))
    lines.append(_line("question", _scalar(template), "columns in braces; the rest is said to teacher and student"))
    most = _most_words(file, chosen["question"])
    if most:
        column, words = most
        field = next((field for field, named in fields.items() if named == column), column)
        comment = "first words of long texts; the rest is left out"
        lines.append(_line("most_words", f"{{{_scalar(field)}: {words}}}", comment))
    if fields:
        pairs = ", ".join(f"{field}: {_flow(column) if isinstance(column, list) else _scalar(column)}"
                          for field, column in fields.items())  # fmt: skip
        lines.append(_line("fields", f"{{{pairs}}}", "field: column, where your names differ"))
    files = ", ".join(f"{_scalar(split.name)}: {_scalar(os.path.relpath(split.file))}" for split in splits.values())
    lines.append(_line("splits", f"{{{files}}}", "beside this file"))
    if file.encoding:
        lines.append(_line("encoding", file.encoding, "of files that are not UTF-8"))
    if chosen["split"] != NONE:
        lines.append(_line("split_column", _scalar(chosen["split"]), "says which split a row belongs to"))
    instruction = INSTRUCTIONS[answers].format(labels=_either(listed(chosen["labels"])))
    instruction += " Write numbers as in 1.234,5." if commas else ""
    lines += ["instruction: >-", *_wrapped(instruction)]
    lines += [
        "# A few worked questions of your own make a teacher keep to the form, and show it what you want:",
        "# exemplars:",
        "#   - question: a question as the teacher reads it",
        "#     rationale: the explanation that you would like to read",
        f"#     answer: {_scalar(listed(chosen['labels'])[0]) if answers == 'label' else 'its answer'}",
    ]
    return "\n".join(lines) + "\n"


def student_text(
    name: str, file: FileColumns, chosen: Mapping[str, str], splits: Mapping[Part, Split], url: str, model: str
) -> str:
    """A configuration for `qcrd distill`, as YAML."""
    lines = [
        f"# qcrd distill {name}-student.yaml",
        "# Every key, with its default: qcrd keys, or docs/configuration.md",
    ]
    lines += ["dataset:", _line("  name", f"{name}.yaml"), *_split_lines(splits)]
    lines += [
        "teacher:",
        _line("  url", _scalar(url), "any OpenAI-compatible endpoint; its key goes into QCRD_TEACHER_API_KEY"),
        _line("  model", _scalar(model), "its name there; without url a hub id or folder that vLLM serves here"),
        _line("  n", "5", "samples a question; the majority of their answers counts"),
        _line("  temperature", "0.7"),
        "student:",
        _line("  model", "google-t5/t5-small", "any T5, Llama, Qwen ... of the hub, or a folder; new needs no hub"),
        "  # With model: new a student begins with random weights, and needs a higher learning rate:",
        "  # optimisation: {learning_rate: 1e-3}    # a pretrained one: 3e-4, the default",
    ]
    asked = [
        *columns_in(file, chosen["question"]),
        *(columns_in(file, chosen["choices"]) if chosen["choices"] != NONE else []),
    ]
    longest = _longest(file, asked)
    tokens = next((size for size in TOKENS if size * CHARACTERS_PER_TOKEN >= longest), TOKENS[-1])
    lines += [
        _line("  max_input_tokens", str(tokens), f"the longest question has about {longest:,} characters"),
        "rounds:",
        _line("  rounds", "10"),
        _line("  patience", "3", "stop after three rounds that are no better on validation"),
    ]
    return "\n".join(lines) + "\n"


def _split_lines(splits: Mapping[Part, Split]) -> list[str]:
    """Which splits train, validate and test."""
    lines = []
    if splits["train"].name != "train":
        lines.append(_line("  train_split", _scalar(splits["train"].name)))
    validation, test = splits.get("validation"), splits.get("test")
    if test is None and validation is None:
        return [*lines, _line("  folds", "5", "a fifth is the test, and a tenth of the others validates")]
    if test is None and validation is not None:
        lines.append(_line("  validation_split", "null", "a tenth of the training questions validates"))
        return [*lines, _line("  test_split", _scalar(validation.name), "there is no other test split")]
    if validation is None:
        lines.append(_line("  validation_split", "null", "a tenth of the training questions validates"))
    elif validation.name != "validation":
        lines.append(_line("  validation_split", _scalar(validation.name)))
    if test is not None and test.name != "test":
        lines.append(_line("  test_split", _scalar(test.name)))
    return lines


def _question(file: FileColumns, value: str) -> tuple[str, dict[str, str | list[str]]]:
    """The template of the question, and the columns that need another name in it."""
    columns = columns_in(file, value)
    names: dict[str, str] = {}
    for column in columns:
        slug = re.sub(r"\W+", "_", column).strip("_")
        usable = slug and not slug.isdecimal() and slug not in (*RESERVED_FIELDS, *names.values())
        # A field may not have the name of another column, lest that is read in its place.
        usable = usable and (slug == column or slug not in file.columns)
        other = "question" if len(columns) == 1 and "question" not in file.columns else f"field_{len(names) + 1}"
        if slug in RESERVED_FIELDS and f"{slug}_column" not in file.columns and len(columns) > 1:
            other = f"{slug}_column"
        names[column] = slug if usable else other
    if value not in file.columns and "{" in value:
        template = re.sub(r"\{([^{}]*)\}", lambda braces: f"{{{names[braces[1]]}}}", value.replace("\\n", "\n"))
    elif len(columns) == 1:
        template = f"{{{names[columns[0]]}}}"
    else:
        headings = ((_heading(file, column), names[column]) for column in columns)
        template = "\n".join(f"{heading[:1].upper()}{heading[1:]}: {{{name}}}" for heading, name in headings)
    return template, {name: column for column, name in names.items() if name != column}


def _heading(file: FileColumns, column: str) -> str:
    """What a column is called in the question: as in the file; of what is in an object, without the object's name."""
    same = [name for name in file.columns if file.columns[name].heading == file.columns[column].heading]
    name = file.columns[column].heading if column.endswith(f".{file.columns[column].heading}") else column
    return (name if len(same) == 1 else column).replace("_", " ").replace(".", " ").strip()


def _longest(file: FileColumns, columns: Iterable[str]) -> int:
    """Characters of the longest question, at most."""
    return sum(file.columns[column].longest for column in columns if column in file.columns)


def long_texts(file: FileColumns, question: str) -> str:
    """Says what is left out of long questions; empty if nothing is."""
    most = _most_words(file, question)
    if most is None:
        return ""
    return (
        f"{most[0]} has up to {file.columns[most[0]].longest:,} characters, more than students read: a question takes "
        f"its first {most[1]} words (most_words)."
    )


def _most_words(file: FileColumns, question: str) -> tuple[str, int] | None:
    """The column that is too long for any student, and how many words of it are not; None if all fits."""
    columns = columns_in(file, question)
    longest = max(columns, key=lambda column: file.columns[column].longest)
    room = TOKENS[-1] * CHARACTERS_PER_TOKEN
    if _longest(file, columns) <= room:
        return None
    others = _longest(file, columns) - file.columns[longest].longest
    return longest, max((room - others) // CHARACTERS_PER_WORD // 10 * 10, 50)


def codes(file: FileColumns, label: str) -> list[str]:
    """The numbers that stand for classes in a file; none if classes have names, or are counted from 0, which needs no
    more than their order."""
    column = file.columns.get(label)
    found = classes(column) if column and column.is_number else []
    return found if found != [str(place) for place in range(len(found))] else []


def _synonyms(labels: list[str], found: list[str]) -> str:
    """What else labels are called: codes that count from another number than 0, names without their numbers."""
    if len(found) == len(labels) and found != labels:
        other = dict(zip(labels, found, strict=True))
        return _line("synonyms", f"{{{', '.join(f'{_scalar(name)}: [{code}]' for name, code in other.items())}}}",
                     "what a file calls them")  # fmt: skip
    bare = [_NUMBERED.sub("", label, count=1) for label in labels]
    if all(name != label for name, label in zip(bare, labels, strict=True)) and len(set(bare)) == len(bare):
        pairs = ", ".join(f"{_scalar(label)}: [{_scalar(name)}]" for label, name in zip(labels, bare, strict=True))
        return _line("synonyms", f"{{{pairs}}}", "what else a teacher may call them")
    return f"# synonyms: {{{_scalar(labels[0])}: [other, words]}}   # what else a teacher may call a label"


def _part(name: str) -> Part:
    parts: dict[str, Part] = {"train": "train", "validation": "validation", "test": "test"}
    return parts[name]


def _line(key: str, value: str, comment: str = "") -> str:
    """A key and its value, with a comment behind, or above a long line."""
    line = f"{key}: {value}"
    if len(line) > LONGEST_BEFORE_COMMENT:
        return f"{' ' * (len(key) - len(key.lstrip()))}# {comment}:\n{line}"
    return f"{line.ljust(COMMENT_AT - 2)}  # {comment}" if comment else line


def _scalar(text: str) -> str:
    """A text as YAML, without quotes where it needs none."""
    if re.fullmatch(r"[^\W\d_](?:[\w ./-]*\w)?", text) and yaml.safe_load(text) == text:
        return text
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10**9).strip()


def _flow(texts: Iterable[str]) -> str:
    return f"[{', '.join(text if text.isdecimal() else _scalar(text) for text in texts)}]"


def _either(texts: list[str]) -> str:
    return ", ".join(texts[:-1]) + f" or {texts[-1]}" if len(texts) > 1 else "".join(texts)


def _wrapped(text: str) -> list[str]:
    """A text as the lines of a folded block."""
    return textwrap.wrap(
        text, 110, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
