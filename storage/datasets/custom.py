"""A user's own dataset, described by a YAML file. No Python is needed where answers are numbers, choices or labels.

    name: tickets                      # stored in every row; letters, digits, - and _
    description: how urgent a support ticket is
    answers: label                     # number, choice, label, labels, or custom (with a parser, see below)
    labels: [low, high]                # for label: in the order of the codes 0, 1, ...
    synonyms: {high: [urgent, asap]}   # other words for a label
    question: "Ticket: {ticket}"       # columns in braces; "{question}" by default
    fields: {label: priority}          # field -> column, where the files use other names
    splits: {train: tickets.jsonl, test: tickets_test.csv}   # beside this file; JSONL, CSV, Parquet ...
    instruction: Say how urgent the ticket is. Explain, then finish with "So the answer is LABEL."
    exemplars:
      - question: "Ticket: the shop is down"
        rationale: Nobody can buy anything while the shop is down.
        answer: high

`parser: "package.module:function"` names a Python function. It gets a sampled text and the choices, and returns the
answer (a text, or None if there is none) or a pair (rationale, answer). `normaliser` names one that gets an answer and
the choices, and returns the answer's canonical spelling or None. Modules are also looked for beside the YAML file.

Every value is read as the text that stands there: the labels `yes`, `no`, `1` and `2021-03-05` need no quotes.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from storage.datasets.assembly import CHOICES, COMMA_NUMBERS, NUMBERS, Answers, assemble, label_sets, labels
from storage.datasets.custom_rows import rows_of, with_fields
from storage.datasets.definition import LABEL_SETS, Dataset, Exemplar, Parsed
from storage.datasets.own_functions import entry_point, guarded_normaliser, guarded_parser
from storage.datasets.parsing import NO_ANSWER, normalise_choice
from storage.encodings import ENCODINGS
from storage.errors import BadFile, one_line
from storage.recorded import SAMPLE_FIELDS

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
RESERVED_FIELDS = (*SAMPLE_FIELDS, "samples", "label")  # these have another meaning in files of recorded samples


class HubDataset(BaseModel):
    """A dataset on the Hugging Face hub."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")] = Field(
        description="The dataset's id on the hub, as owner/name."
    )
    configuration: Annotated[str, StringConstraints(pattern=r"^[\w.-]+$")] = Field(
        default="default", description="Its configuration (the hub's page calls it the subset)."
    )


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
    answers: Literal["number", "choice", "label", "labels", "custom"] = Field(
        description="`number`, `choice`, `label`, `labels` (any number of them at once), or `custom` with a `parser`."
    )
    labels: tuple[Text, ...] = Field(
        default=(), description="For answers: label or labels, the labels in the order of their codes 0, 1, ..."
    )
    synonyms: Mapping[str, tuple[Text, ...]] = Field(
        default_factory=dict, description="Other words for a label, as label: [word, ...]."
    )
    choice_labels: tuple[Text, ...] = Field(
        default=(),
        description="What the label column calls the choices, in order, such as 0, 1, 2, 3; by default their letters "
        "or their texts.",
    )
    decimals: Literal["point", "comma"] = Field(
        default="point",
        description="For answers: number, what stands before the decimals in the files and in a teacher's texts: "
        "`comma` for 1.234,5.",
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
    fields: Mapping[str, Text | tuple[Text, ...]] = Field(
        default_factory=dict,
        description="Columns that have other names in the files, as field: column; ticket.body is the body in an "
        "object ticket. Choices that stand in a column each are choices: [column, column, ...].",
    )
    most_words: Mapping[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="How many words of a column a question takes at most, as column: number; the rest is left out, "
        "which the run says. A token is about three quarters of a word.",
    )
    splits: Mapping[str, Text] = Field(
        min_length=1,
        description="Files with the questions, as split: file; JSONL, JSON, CSV or TSV (also .gz), or Parquet, beside "
        "the YAML file. With `hub`, the names of the splits there.",
    )
    encoding: Text | None = Field(
        default=None,
        description="Encoding of text files that are not UTF-8, such as cp1252 (Windows in western Europe).",
    )
    hub: HubDataset | None = Field(
        default=None, description="Where on the Hugging Face hub the splits are, instead of files."
    )
    split_column: Text | None = Field(
        default=None,
        description="Column that says which split a row belongs to, where one file holds several: rows with the "
        "split's name in it.",
    )

    # The prompt
    instruction: str = Field(
        default='Answer the question. Think step by step, then finish with "So the answer is ANSWER."',
        description="What the teacher is told before the questions.",
    )
    exemplars: tuple[CustomExemplar, ...] = Field(default=(), description="Worked questions shown to the teacher.")

    @model_validator(mode="after")
    def _fits_together(self) -> "CustomDataset":
        of_labels = self.answers in ("label", LABEL_SETS)
        if of_labels and len(self.labels) < 2:
            raise ValueError("labels: list at least two, since answers are labels")
        if not of_labels and (self.labels or self.synonyms):
            raise ValueError(f"labels: only for answers: label or labels, not for answers: {self.answers}")
        if self.decimals == "comma" and self.answers != "number":
            raise ValueError(f"decimals: only for answers: number, not for answers: {self.answers}")
        if self.answers == "custom" and not self.parser:
            raise ValueError('parser: name a function as "package.module:function", since answers are custom')
        for label in self.synonyms:
            if label not in self.labels:
                raise ValueError(f"synonyms: {label!r} is not a label; {_allowed(label, self.labels)}")
        for field, column in self.fields.items():
            if field != "choices" and not isinstance(column, str):
                raise ValueError(f"fields: {field} must name one column; only choices may stand in several")
        if self.encoding is not None and not _is_encoding(self.encoding):
            raise ValueError(f"encoding is {self.encoding!r}, which is none; {_allowed(self.encoding, ENCODINGS)}")
        if self.hub is not None and self.split_column is not None:
            raise ValueError("split_column: only for files; a hub dataset has its splits by name")
        if self.choice_labels and not self.has_choices:
            raise ValueError("choice_labels: only where there are choices")
        columns = self.fields.get("choices", "")
        if self.choice_labels and not isinstance(columns, str) and len(columns) != len(self.choice_labels):
            raise ValueError(
                f"choice_labels: {len(self.choice_labels)} for the {len(columns)} columns of fields.choices"
            )
        return self

    @property
    def has_choices(self) -> bool:
        """Whether its questions have choices."""
        return self.answers == "choice" or "choices" in self.fields


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
            rows=lambda split: rows_of(settings, file, split),
            most_words=settings.most_words,
            encoding=settings.encoding,
            instruction=settings.instruction.strip(),
            exemplars=[
                Exemplar(item.question, item.rationale, item.answer, item.choices) for item in settings.exemplars
            ],
            template=settings.question,
            has_choices=settings.has_choices,
            choice_labels=settings.choice_labels,
            adapt=lambda row: with_fields(row, settings),
        )
    except ValueError as error:  # an exemplar that the parser misreads, a synonym of two labels
        raise BadFile(f"{file}: {error}") from error


def _as_written(node: yaml.Node | None, known: dict[int, Any]) -> Any:
    """What a YAML file says, as the texts that stand there: yes, no, 1, 2.0 and 2021-03-05 too. Nothing at all is None.

    Args:
        known: values of nodes read before, since a file may point to one from many places.
    """
    if node is None:
        return None
    if id(node) not in known:
        if isinstance(node, yaml.MappingNode):
            if not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
                raise ValueError("a key must be a text")
            known[id(node)] = {key.value: _as_written(value, known) for key, value in node.value}
        elif isinstance(node, yaml.SequenceNode):
            known[id(node)] = [_as_written(item, known) for item in node.value]
        else:
            known[id(node)] = None if node.tag.endswith(":null") else node.value
    return known[id(node)]


def _settings(file: Path) -> CustomDataset:
    try:
        if not file.is_file():
            raise BadFile(f"No such dataset file: {file}")
        content = _as_written(yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), {})
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:  # ValueError: not UTF-8
        raise BadFile(f"{file} is not YAML: {one_line(error)}") from error
    if not isinstance(content, Mapping):
        raise BadFile(f"{file} must consist of keys and values (name: ..., answers: ..., splits: ...)")
    try:
        settings = CustomDataset.model_validate(dict(content))
    except ValidationError as error:
        raise BadFile(f"{file}: {_first_problem(error)}") from error
    _check_template(settings.question, file)
    inputs = tuple(name for _, name, _, _ in Formatter().parse(settings.question) if name)
    for column in settings.most_words:
        if column not in inputs:
            raise BadFile(f"{file}: most_words: {column!r} is not in the question; {_allowed(column, inputs)}")
    return settings


def _first_problem(error: ValidationError) -> str:
    """The first problem in one line: key, value, what is allowed, nearest spelling."""
    problem = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in problem["loc"])
    value = str(problem["input"])[:60]
    if problem["type"] == "extra_forbidden":
        parts: dict[str, type[BaseModel]] = {"exemplars": CustomExemplar, "hub": HubDataset}
        known = (
            parts.get(key.partition(".")[0], CustomDataset).model_fields if "." in key else CustomDataset.model_fields
        )
        return f"unknown key {key!r} (value {value!r}); {_allowed(key.rpartition('.')[2], tuple(known))}"
    if problem["type"] == "missing":
        return f"the key {key!r} is missing"
    if problem["type"] == "literal_error":
        expected = tuple(re.findall("'(.*?)'", problem["ctx"]["expected"]))
        return f"{key} is {value!r}; {_allowed(value, expected)}"
    if key == "hub.repository":
        return f"hub.repository is {value!r}; write owner/name, as the hub's page has it"
    if problem["input"] is None:
        return f"{key} is empty; write a text (the word null in quotes)"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    return f"{key} is {value!r}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def _allowed(name: str, allowed: tuple[str, ...]) -> str:
    nearest = get_close_matches(str(name), allowed, n=1, cutoff=0.5)
    return f"allowed: {', '.join(allowed)}." + (f" Did you mean {nearest[0]!r}?" if nearest else "")


def _is_encoding(name: str) -> bool:
    """Whether Python has a text encoding of this name."""
    try:
        "".encode(name)
    except LookupError:
        return False
    return True


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


def _answers(settings: CustomDataset, file: Path) -> Answers:
    answers = {
        "number": lambda: COMMA_NUMBERS if settings.decimals == "comma" else NUMBERS,
        "choice": lambda: CHOICES,
        "label": lambda: labels(settings.labels, settings.synonyms),
        LABEL_SETS: lambda: label_sets(settings.labels, settings.synonyms),
        "custom": lambda: Answers("custom", _unparsed, _tidy),
    }[settings.answers]()
    normalise = answers.normalise
    if settings.normaliser:
        normalise = guarded_normaliser(entry_point(settings.normaliser, "normaliser", file))
    parse = answers.parse
    if settings.parser:
        parse = guarded_parser(entry_point(settings.parser, "parser", file), normalise)
    return Answers(
        answers.kind, parse, normalise, answers.allowed, None if settings.normaliser else answers.normalise_label
    )


def _unparsed(text: str, choices: tuple[str, ...]) -> Parsed:  # noqa: ARG001 - replaced by the user's parser
    return Parsed(text, None, NO_ANSWER)


def _tidy(answer: str, choices: tuple[str, ...]) -> str | None:
    return normalise_choice(answer, choices)
