"""A user's own dataset, described by a YAML file. No Python is needed where answers are numbers, choices or labels.

    name: tickets                      # stored in every row; letters, digits, - and _
    description: how urgent a support ticket is
    answers: label                     # number, choice, label, or custom (with a parser, see below)
    labels: [low, high]                # for label: in the order of the codes 0, 1, ...
    synonyms: {high: [urgent, asap]}   # other words for a label
    question: "Ticket: {ticket}"       # columns in braces; "{question}" by default
    fields: {label: priority}          # field -> column, where the files use other names
    splits: {train: tickets.jsonl, test: tickets_test.csv}   # beside this file; JSONL, CSV (also .gz) or Parquet
    instruction: Say how urgent the ticket is. Explain, then finish with "So the answer is LABEL."
    exemplars:
      - question: "Ticket: the shop is down"
        rationale: Nobody can buy anything while the shop is down.
        answer: high

`parser: "package.module:function"` names a Python function. It gets a sampled text and the choices, and returns the
answer (a text, or None if there is none) or a pair (rationale, answer). `normaliser` names one that gets an answer and
the choices, and returns the answer's canonical spelling or None. Modules are also looked for beside the YAML file.
"""

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from storage.datasets.assembly import CHOICES, NUMBERS, Answers, assemble, labels
from storage.datasets.definition import Dataset, Exemplar, Parsed
from storage.datasets.layout import renamed
from storage.datasets.parsing import NO_ANSWER, normalise_choice
from storage.errors import BadFile, one_line
from storage.recorded import SAMPLE_FIELDS
from storage.rows import read_rows, without_surrogates

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
PARSER_FAILED = "parser failed"
# The built-in datasets of registry.py.
RESERVED_NAMES = ("anli1", "cqa", "esnli", "gsm8k", "lab", "svamp", "svamp-equation")
RESERVED_FIELDS = (*SAMPLE_FIELDS, "samples", "label")  # these have another meaning in files of recorded samples


class CustomExemplar(BaseModel):
    """A worked question shown to the teacher."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: Text = Field(description="The question as the teacher reads it.")
    rationale: Text = Field(description="The explanation.")
    answer: Text = Field(description="The answer that the explanation ends in.")
    choices: tuple[Text, ...] = Field(default=(), description="The choices, where the dataset has some.")


class CustomDataset(BaseModel):
    """The YAML file that describes a dataset of your own (docs/datasets.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The dataset
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")] = Field(
        description="Name in the store: letters, digits, - and _; not that of a built-in dataset."
    )
    description: str = Field(default="", description="What the dataset is, in one line.")

    # The answers
    answers: Literal["number", "choice", "label", "custom"] = Field(
        description="`number`, `choice`, `label`, or `custom` with a `parser`."
    )
    labels: tuple[Text, ...] = Field(
        default=(), description="For answers: label, the labels in the order of their codes 0, 1, ..."
    )
    synonyms: Mapping[str, tuple[Text, ...]] = Field(
        default_factory=dict, description="Other words for a label, as label: [word, ...]."
    )
    parser: str | None = Field(
        default=None,
        description="package.module:function, a Python function that is called with a sampled text and the choices and "
        "returns the answer (None where there is none) or a pair (rationale, answer). Its module may lie beside the "
        "YAML file.",
    )
    normaliser: str | None = Field(
        default=None,
        description="package.module:function, a Python function that is called with an answer and the choices and "
        "returns its one spelling, or None.",
    )

    # The questions
    question: Text = Field(
        default="{question}", description="The question, made of columns in braces, such as Ticket: {ticket}."
    )
    fields: Mapping[str, Text] = Field(
        default_factory=dict, description="Columns that have other names in the files, as field: column."
    )
    splits: Mapping[str, Text] = Field(
        min_length=1,
        description="Files with the questions, as split: file; JSONL or CSV (also .gz), or Parquet, beside the YAML "
        "file.",
    )

    # The prompt
    instruction: str = Field(
        default='Answer the question. Think step by step, then finish with "So the answer is ANSWER."',
        description="What the teacher is told before the questions.",
    )
    exemplars: tuple[CustomExemplar, ...] = Field(default=(), description="Worked questions shown to the teacher.")

    @model_validator(mode="after")
    def _fits_together(self) -> "CustomDataset":
        if self.name in RESERVED_NAMES:
            raise ValueError(f"name: {self.name!r} is a built-in dataset; choose another name")
        if self.answers == "label" and len(self.labels) < 2:
            raise ValueError("labels: list at least two, since answers are labels")
        if self.answers != "label" and (self.labels or self.synonyms):
            raise ValueError(f"labels: only for answers: label, not for answers: {self.answers}")
        if self.answers == "custom" and not self.parser:
            raise ValueError('parser: name a function as "package.module:function", since answers are custom')
        for label in self.synonyms:
            if label not in self.labels:
                raise ValueError(f"synonyms: {label!r} is not a label; {_allowed(label, self.labels)}")
        return self


def load_custom(path: str | Path) -> Dataset:
    """The dataset that a YAML file describes.

    Raises:
        BadFile: the file is missing, is not YAML, or says something that is not allowed. The message names the key,
            the value, what is allowed and the nearest valid spelling.
    """
    file = Path(path)
    settings = _settings(file)
    try:
        answers = _answers(settings, file)
        return assemble(
            name=settings.name,
            description=settings.description,
            answers=answers,
            splits=tuple(settings.splits),
            rows=lambda split: _rows(settings, file, split),
            instruction=settings.instruction.strip(),
            exemplars=[
                Exemplar(item.question, item.rationale, item.answer, item.choices) for item in settings.exemplars
            ],
            template=settings.question,
            has_choices=settings.answers == "choice" or "choices" in settings.fields,
            adapt=lambda row: _with_fields(row, settings.fields),
        )
    except ValueError as error:  # an exemplar that the parser misreads, a synonym of two labels
        raise BadFile(f"{file}: {error}") from error


def _settings(file: Path) -> CustomDataset:
    try:
        if not file.is_file():
            raise BadFile(f"No such dataset file: {file}")
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (
        yaml.YAMLError,
        ValueError,
        OSError,
        RecursionError,
    ) as error:  # ValueError: not UTF-8, impossible date
        raise BadFile(f"{file} is not YAML: {one_line(error)}") from error
    if not isinstance(content, Mapping):
        raise BadFile(f"{file} must consist of keys and values (name: ..., answers: ..., splits: ...)")
    try:
        settings = CustomDataset.model_validate(dict(content))
    except ValidationError as error:
        raise BadFile(f"{file}: {_first_problem(error)}") from error
    _check_template(settings.question, file)
    return settings


def _first_problem(error: ValidationError) -> str:
    """The first problem in one line: key, value, what is allowed, nearest spelling."""
    problem = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in problem["loc"])
    value = str(problem["input"])[:60]
    if problem["type"] == "extra_forbidden":
        known = CustomExemplar.model_fields if key.startswith("exemplars.") else CustomDataset.model_fields
        return f"unknown key {key!r} (value {value!r}); {_allowed(key.rpartition('.')[2], tuple(known))}"
    if problem["type"] == "missing":
        return f"the key {key!r} is missing"
    if problem["type"] == "literal_error":
        return f"{key} is {value!r}; {_allowed(value, ('number', 'choice', 'label', 'custom'))}"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    return f"{key} is {value!r}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def _allowed(name: str, allowed: tuple[str, ...]) -> str:
    nearest = get_close_matches(str(name), allowed, n=1, cutoff=0.5)
    return f"allowed: {', '.join(allowed)}." + (f" Did you mean {nearest[0]!r}?" if nearest else "")


def _check_template(template: str, file: Path) -> None:
    try:
        fields = [
            (name, format_spec, conversion)
            for _, name, format_spec, conversion in Formatter().parse(template)
            if name is not None
        ]
    except ValueError as error:
        raise BadFile(
            f"{file}: question is {template[:60]!r}: {error}; write {{column}}, and {{{{ for a brace"
        ) from error
    if not fields:
        raise BadFile(
            f"{file}: question is {template[:60]!r}; it must name at least one column in braces, as in '{{ticket}}'"
        )
    for name, format_spec, conversion in fields:
        # Python's templates can do more than name a column; "{0}" would be the first of a list.
        if format_spec or conversion or not re.fullmatch(r"\w+", name) or name.isdecimal():
            raise BadFile(
                f"{file}: question is {template[:60]!r}; only a column's name may stand between braces, as in "
                "'{ticket}'"
            )
        if name in RESERVED_FIELDS:
            raise BadFile(
                f"{file}: question names the field {name!r}, which is reserved (as are "
                f"{', '.join(other for other in RESERVED_FIELDS if other != name)}); choose another name, "
                f"as in fields: {{ticket: {name}}}"
            )


def _rows(settings: CustomDataset, file: Path, split: str) -> Iterator[Mapping[str, Any]]:
    return read_rows(file.parent / settings.splits[split])


def _with_fields(row: Mapping[str, Any], fields: Mapping[str, str]) -> Mapping[str, Any]:
    """The row with columns renamed to fields, except those that already have the field's name."""
    return renamed(row, {field: column for field, column in fields.items() if column in row or field not in row})


def _answers(settings: CustomDataset, file: Path) -> Answers:
    answers = {
        "number": lambda: NUMBERS,
        "choice": lambda: CHOICES,
        "label": lambda: labels(settings.labels, settings.synonyms),
        "custom": lambda: Answers("custom", _unparsed, _tidy),
    }[settings.answers]()
    normalise = answers.normalise
    if settings.normaliser:
        normalise = _guarded_normaliser(_entry_point(settings.normaliser, "normaliser", file))
    parse = answers.parse
    if settings.parser:
        parse = _guarded_parser(_entry_point(settings.parser, "parser", file), normalise)
    return Answers(answers.kind, parse, normalise, answers.allowed)


def _entry_point(name: str, key: str, file: Path) -> Callable[..., Any]:
    module_name, colon, function_name = name.partition(":")
    if not colon or not module_name or not function_name:
        raise BadFile(f'{file}: {key} is {name!r}; write "package.module:function"')
    folder = str(file.parent.resolve())
    sys.path.insert(0, folder)
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
    except (Exception, SystemExit) as error:  # the user's module may do anything when it is imported
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise BadFile(f"{file}: {key} {name!r} cannot be imported: {reason}") from error
    finally:
        sys.path.remove(folder)
    if not callable(function):
        raise BadFile(f"{file}: {key} {name!r}: the module has no function {function_name!r}")
    return function  # type: ignore[no-any-return]


def _guarded_parser(
    function: Callable[..., Any], normalise: Callable[[str, tuple[str, ...]], str | None]
) -> Callable[[str, tuple[str, ...]], Parsed]:
    """The user's parser, returning `Parsed`; a text that it fails on is unparsed."""

    def parse(text: str, choices: tuple[str, ...]) -> Parsed:
        try:
            returned = function(text, choices)
            if isinstance(returned, Parsed):
                rationale, answer, reason = returned.rationale, returned.answer, returned.parse_error
            else:
                # A tuple that is not a pair raises a ValueError here.
                rationale, answer = returned if isinstance(returned, tuple) else (text.strip(), returned)
                reason = None
            normalised = None if answer is None else normalise(without_surrogates(str(answer)), choices)
            reason = None if normalised is not None else without_surrogates(str(reason or NO_ANSWER))
            return Parsed(without_surrogates(str(rationale)), normalised, reason)
        except (Exception, SystemExit) as error:  # one strange text must not end a run with thousands
            return Parsed(text.strip(), None, f"{PARSER_FAILED}: {type(error).__name__}")

    return parse


def _guarded_normaliser(function: Callable[..., Any]) -> Callable[[str, tuple[str, ...]], str | None]:
    def normalise(answer: str, choices: tuple[str, ...]) -> str | None:
        try:
            returned = function(answer, choices)
            return None if returned is None else without_surrogates(str(returned))
        except (Exception, SystemExit):  # an answer that the user's function fails on is not an answer
            return None

    return normalise


def _unparsed(text: str, choices: tuple[str, ...]) -> Parsed:  # noqa: ARG001 - replaced by the user's parser
    return Parsed(text, None, NO_ANSWER)


def _tidy(answer: str, choices: tuple[str, ...]) -> str | None:
    return normalise_choice(answer, choices)
