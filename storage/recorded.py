"""Reads files of recorded samples: questions with what some teacher wrote about them.

There are two layouts, told apart by the column `samples`:

- nested: one question per row; `samples` is a list of {"teacher": ..., "text": ..., "answer": ...};
- flat: one sample per row; the columns `teacher`, `text` and `answer` stand beside those of the question. Rows of one
  question may be far apart (content ids join them later).

A sample needs only its `text`. `teacher` defaults to "recorded"; in the nested layout it may stand beside `samples`,
for all of them. `answer` is what another parser read, `thought` what the teacher thought before the text (also under
the API's name, `reasoning_content`), and `finish_reason` why the text ends there; they may be missing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.datasets.definition import LABEL_SETS, Dataset, Example
from storage.datasets.label_sets import label_text
from storage.datasets.layout import NO_MAPPING, check_mapping, renamed
from storage.datasets.values import as_text
from storage.errors import BadFile, NoField
from storage.rows import missing_column, parse_json, read_rows

SAMPLE_FIELDS = ("teacher", "text", "answer", "thought", "finish_reason")
THOUGHT_OF_THE_API = "reasoning_content"
UNKNOWN_TEACHER = "recorded"
_HINT = "Name the right one with --map {}=COLUMN."


@dataclass(frozen=True)
class RecordedSample:
    """One recorded text.

    Attributes:
        teacher: who wrote it.
        text: the whole text, as recorded.
        answer: its answer according to the file, not normalised; None if the file gives none.
        thought: what was thought before, where the file has it apart from the text; else None.
        finish_reason: "stop", "length" ...; None if the file does not say.
    """

    teacher: str
    text: str
    answer: str | None = None
    thought: str | None = None
    finish_reason: str | None = None


@dataclass(frozen=True)
class RecordedQuestion:
    """A question with the samples of one row."""

    example: Example
    samples: tuple[RecordedSample, ...]


def read_recorded(
    path: str | Path, dataset: Dataset, mapping: Mapping[str, str] = NO_MAPPING
) -> Iterator[RecordedQuestion]:
    """Yields the questions of a recording with their samples, row by row.

    Args:
        path: a file that `storage.rows.read_rows` reads.
        dataset: the dataset of the questions.
        mapping: field -> column. Fields are the dataset's own and `teacher`, `text`, `answer`, `thought`,
            `finish_reason` and `samples`. In the nested layout all of these but the last are mapped to keys inside
            `samples`.

    Raises:
        UnknownName: there is no field of that name.
        BadFile: the file or a row cannot be read; the message names the file and the row.
    """
    check_mapping(mapping, (*dataset.fields, *SAMPLE_FIELDS, "samples"))
    for number, row in enumerate(read_rows(path), start=1):
        try:
            question = _question(row, dataset, mapping)
        except BadFile as error:
            hint = f" {_HINT.format(error.field)}" if isinstance(error, NoField) else ""
            raise BadFile(f"{path} row {number}: {error}{hint}") from error
        yield question


def _question(row: Mapping[str, Any], dataset: Dataset, mapping: Mapping[str, str]) -> RecordedQuestion:
    nested = mapping.get("samples", "samples") in row
    if nested:
        of_row = {field: column for field, column in mapping.items() if field not in SAMPLE_FIELDS}
        of_sample = {field: column for field, column in mapping.items() if field in SAMPLE_FIELDS}
        row = renamed(row, of_row)
        fallback = as_text(row.get("teacher"), "teacher") or UNKNOWN_TEACHER
        samples = tuple(_sample(item, of_sample, fallback, dataset) for item in _sample_list(row["samples"]))
        taken: tuple[str, ...] = ("samples", "teacher")
    else:
        row = renamed(row, mapping)
        samples = (_sample(row, NO_MAPPING, UNKNOWN_TEACHER, dataset),)
        taken = (*SAMPLE_FIELDS, THOUGHT_OF_THE_API)
    rest = {column: value for column, value in row.items() if column not in taken}
    return RecordedQuestion(dataset.example_from_row(rest), samples)


def _sample_list(value: Any) -> list[Any]:
    if isinstance(value, (str, bytes)):  # a CSV cell
        try:
            value = parse_json(as_text(value, "samples"))
        except ValueError as error:
            raise BadFile("samples is a text that is not JSON; expected a list of samples") from error
    if not isinstance(value, list):
        raise BadFile(f"samples must be a list, not {type(value).__name__}")
    return value


def _sample(item: Any, mapping: Mapping[str, str], teacher: str, dataset: Dataset) -> RecordedSample:
    if isinstance(item, (str, bytes)):
        return RecordedSample(teacher, as_text(item, "text"))
    if not isinstance(item, Mapping):
        raise BadFile(f"a sample must be an object or a text, not {type(item).__name__}")
    fields = renamed(item, mapping)
    if "text" not in fields:
        raise missing_column("text", fields, _HINT.format("text"))
    answer = fields.get("answer")
    return RecordedSample(
        teacher=as_text(fields.get("teacher"), "teacher") or teacher,
        text=as_text(fields["text"], "text"),
        answer=(label_text(answer) if dataset.answer_kind == LABEL_SETS else as_text(answer, "answer")) or None,
        thought=as_text(fields.get("thought", fields.get(THOUGHT_OF_THE_API)), "thought").strip() or None,
        finish_reason=as_text(fields.get("finish_reason"), "finish_reason") or None,
    )
