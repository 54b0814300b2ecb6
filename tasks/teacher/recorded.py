"""Imports a recorded teacher's samples into the store, as ordinary rationale rows."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from storage.datasets.definition import Dataset, Parsed
from storage.errors import NothingToDo
from storage.ids import example_id, recorded_sample_id
from storage.rationales import rationale_row
from storage.recorded import RecordedQuestion, RecordedSample, read_recorded
from storage.schemas import RATIONALES
from storage.store import Store
from tasks.questions.stored import store_examples
from tasks.teacher.reading import Rationale, read_sample

Answers = Literal["parsed", "recorded"]
QUESTIONS_AT_ONCE = 20_000
"""Questions read before they are stored. A file with an error before that leaves nothing behind. A longer file with a
later error leaves its first part; importing the corrected file adds only the rest."""


@dataclass(frozen=True)
class ImportSummary:
    """What an import did, in counts; `added`, `changed` and `unchanged` count samples. `notes` say what was left out of
    questions."""

    questions: int
    repeated_questions: int
    labelled: int
    samples: int
    unparsed: int
    added: int
    changed: int
    unchanged: int
    teachers: dict[str, int]
    notes: tuple[str, ...] = ()


def import_recorded(
    store: Store,
    dataset: Dataset,
    path: str,
    split: str,
    *,
    answers: Answers = "parsed",
    rationale: Rationale = "auto",
    mapping: Mapping[str, str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImportSummary:
    """Reads a file of recorded samples and stores what is not stored yet.

    Args:
        answers: `parsed` reads each answer from the sample's text; `recorded` takes the file's own answer, and a
            missing one stays unparsed. Importing again with the other choice revises the answers.
        rationale: what students learn from where the teacher thought first. Importing again with another choice revises
            the rationales.
        mapping: field -> column, if the file's columns have other names.
        on_progress: called with (questions, samples) read so far.

    Raises:
        BadFile, UnknownName: the file or the mapping is wrong.
        NothingToDo: the file holds questions but no samples.
    """
    questions = read_recorded(path, dataset, mapping or {})
    occurrences: Counter[tuple[str, str, str, str | None]] = Counter()
    places: Counter[str] = Counter()
    teachers: Counter[str] = Counter()
    total = ImportSummary(0, 0, 0, 0, 0, 0, 0, 0, {})
    for chunk in _chunks(questions, QUESTIONS_AT_ONCE):
        rows: list[dict[str, Any]] = []
        labelled: set[str] = set()
        for number, question in enumerate(chunk, 1):
            key = example_id(dataset.name, split, question.example.question, question.example.choices)
            if question.example.label is not None:
                labelled.add(key)
            for sample in question.samples:
                seen = (key, sample.teacher, sample.text, sample.thought)
                identity = recorded_sample_id(key, sample.teacher, sample.text, occurrences[seen], sample.thought)
                rows.append(_row(dataset, split, key, question, sample, answers, rationale, identity, places[key]))
                occurrences[seen] += 1
                places[key] += 1
            if on_progress and number % 200 == 0:
                on_progress(total.questions + number, total.samples + len(rows))
        # Checked and converted before anything is stored, so that a bad file leaves nothing behind.
        if not rows:
            raise NothingToDo(
                f"{path} holds no samples: each question needs a `text`, or `samples` with a `text` each."
            )
        table = pa.Table.from_pylist(rows, RATIONALES.schema)
        with store.lock(f"import {dataset.name}/{split}"):
            stored = store_examples(store, dataset, split, (question.example for question in chunk))
            table = table.filter(pc.is_in(table["example_id"], pa.array(stored.example_ids, pa.string())))
            counts = store.upsert(RATIONALES, table)
        teachers.update(table["model"].to_pylist())
        total = replace(
            total,
            questions=total.questions + len(stored.example_ids),
            repeated_questions=total.repeated_questions + stored.repeated,
            labelled=total.labelled + len(labelled.intersection(stored.example_ids)),
            samples=total.samples + len(table),
            unparsed=total.unparsed + table["answer"].null_count,
            added=total.added + counts[0],
            changed=total.changed + counts[1],
            unchanged=total.unchanged + counts[2],
            notes=(*total.notes, *stored.notes),
        )
        if on_progress:
            on_progress(total.questions, total.samples)
    return replace(total, teachers=dict(teachers.most_common()))


def _row(
    dataset: Dataset,
    split: str,
    key: str,
    question: RecordedQuestion,
    sample: RecordedSample,
    answers: Answers,
    rationale: Rationale,
    identity: str,
    place: int,
) -> dict[str, Any]:
    choices = question.example.choices
    reading = read_sample(
        dataset, choices, sample.text, thought=sample.thought, finish_reason=sample.finish_reason, rationale=rationale
    )
    parsed = reading.parsed
    if answers == "recorded":
        parsed = _with_recorded_answer(dataset, parsed, sample.answer, choices)
    return rationale_row(
        "recorded",
        sample_id=identity,
        example_id=key,
        dataset=dataset.name,
        split=split,
        model=sample.teacher,
        sample_index=place,
        text=sample.text,
        thought=reading.thought,
        finish_reason=sample.finish_reason,
        parsed=parsed,
    )


def _with_recorded_answer(dataset: Dataset, parsed: Parsed, recorded: str | None, choices: tuple[str, ...]) -> Parsed:
    if recorded is None:
        return Parsed(parsed.rationale, None, "recorded without an answer")
    answer = dataset.normalise(recorded, choices)
    return Parsed(parsed.rationale, answer, None if answer is not None else "recorded answer is no valid answer")


def _chunks(questions: Iterable[RecordedQuestion], size: int) -> Iterator[list[RecordedQuestion]]:
    iterator = iter(questions)
    while chunk := list(islice(iterator, size)):
        yield chunk
