"""Votes as rows that other trainers read, such as TRL, in a JSONL or Parquet file.

| shape         | one row is                                                                   |
|---------------|------------------------------------------------------------------------------|
| `sft`         | a prompt and its completion: each positive rationale, and the question's answer |
| `preferences` | a prompt with a positive rationale, chosen, and a negative one, rejected     |
| `rationales`  | a sample, positive or not, with its question and its vote                    |

Rows are streamed from the store, and the file appears whole or not at all.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from models.folders import whole_file
from models.prefixes import EXPLAIN, PREDICT, SEPARATOR
from storage.datasets.definition import Dataset
from storage.datasets.prompts import with_answer
from storage.errors import NothingToDo, StoreWriteFailed, UsageError
from storage.store import Store
from storage.voted import ROWS_AT_ONCE, Wanted, newest_scores, voted_questions
from storage.votes import stored_splits

Shape = Literal["sft", "preferences", "rationales"]
Asked = Literal["student", "question"]
Labels = Literal["gold", "teacher"]
Row = dict[str, Any]
SUFFIXES = (".jsonl", ".parquet")

_SCORES = {"score", "chosen_score", "rejected_score"}
SCHEMAS: dict[Shape, pa.Schema] = {
    "sft": pa.schema(
        [
            ("prompt", pa.string()),
            ("completion", pa.string()),
            ("task", pa.string()),  # explain: a rationale; predict: an answer alone
            ("share", pa.float64()),  # of the votes, for the answer that the completion comes to; null without votes
            ("count", pa.int32()),  # how often the teacher wrote this rationale; 1 for an answer
            ("score", pa.float64()),
            ("example_id", pa.string()),
            ("split", pa.string()),
        ]
    ),
    "preferences": pa.schema(
        [
            ("prompt", pa.string()),
            ("chosen", pa.string()),
            ("rejected", pa.string()),
            *((f"{side}_answer", pa.string()) for side in ("chosen", "rejected")),
            *((f"{side}_share", pa.float64()) for side in ("chosen", "rejected")),  # of the votes, for its answer
            *((f"{side}_count", pa.int32()) for side in ("chosen", "rejected")),  # how often the teacher wrote it
            *((f"{side}_score", pa.float64()) for side in ("chosen", "rejected")),
            ("example_id", pa.string()),
            ("split", pa.string()),
        ]
    ),
    "rationales": pa.schema(
        [
            ("prompt", pa.string()),
            ("rationale", pa.string()),
            ("answer", pa.string()),
            ("vote", pa.string()),  # positive, negative or neither
            ("reason", pa.string()),  # why it is neither
            ("share", pa.float64()),  # of the votes, for its answer
            ("count", pa.int32()),  # how often the teacher wrote it, of positives and negatives; else 1
            ("score", pa.float64()),
            ("correct", pa.bool_()),  # the answer is the label; null without either
            ("parse_error", pa.string()),
            ("text", pa.string()),  # exactly as sampled
            ("model", pa.string()),
            ("sample_index", pa.int32()),
            ("sample_id", pa.string()),
            ("question", pa.string()),
            ("choices", pa.list_(pa.string())),
            ("label", pa.string()),
            ("winner", pa.string()),
            ("tie", pa.bool_()),
            ("example_id", pa.string()),
            ("split", pa.string()),
        ]
    ),
}
"""The columns of each shape. A score is the discriminator's quality, in (0, 1); without any, its column is left out."""


@dataclass(frozen=True)
class Export:
    """What to write.

    Attributes:
        shape: as in SCHEMAS.
        wanted: which questions, under which vote.
        asked: `student`: a prompt is what a student is asked, the task's prefix included. `question`: the question
            with its choices, and a completion ends in the answer.
        labels: whose answers are targets: the gold labels, or the teacher's majority.
    """

    shape: Shape
    wanted: Wanted
    asked: Asked = "student"
    labels: Labels = "gold"


@dataclass(frozen=True)
class ExportSummary:
    """What an export holds.

    Attributes:
        file: the file.
        shape: its shape.
        vote_id: the vote that counted.
        rows: its rows, by task (`sft`) or vote (`rationales`) where there are several kinds.
        questions: questions with a row.
        left_out: questions without one.
        outdated: questions whose samples are not those that were voted on.
        training, round: whose discriminator scored; None without scores.
    """

    file: str
    shape: Shape
    vote_id: str
    rows: dict[str, int]
    questions: int
    left_out: int
    outdated: int
    training: str | None
    round: int | None


def export_votes(
    store: Store,
    dataset: Dataset,
    export: Export,
    file: Path,
    on_progress: Callable[[int], None] | None = None,
) -> ExportSummary:
    """Writes a file; one that is there is replaced.

    Args:
        on_progress: called with the number of questions that are done.

    Raises:
        NothingToDo: no row came of it; nothing is written.
        UsageError: the file is of an unknown kind, or the dataset has no such answers.
        StoreWriteFailed: the file cannot be written; nothing is left of it.
        DamagedPart: a part file cannot be read.
    """
    if export.labels == "teacher" and dataset.target is not None:
        raise UsageError(
            f"--labels teacher does not go with this dataset: its students write {dataset.target!r} as their answer, "
            "which no majority has."
        )
    if export.wanted.vote_id is None:
        raise UsageError("an export needs a vote")
    scores = newest_scores(store, dataset.name)
    schema = SCHEMAS[export.shape]
    if scores is None:
        schema = pa.schema([field for field in schema if field.name not in _SCORES])
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()

    def rows() -> Iterator[Row]:
        for split in _splits(store, dataset, export.wanted, scores):
            for question in voted_questions(store, dataset, replace(export.wanted, split=split)):
                made = Counter[str]()
                for kind, row in _rows_of(question, dataset, export):
                    made[kind] += 1
                    yield row | {"example_id": question["example_id"], "split": split}
                kinds.update(made)
                counts["questions" if made else "left_out"] += 1
                counts["outdated"] += question["outdated"]

    try:
        with whole_file(file) as partial, _writer(partial, file.suffix, schema) as write:
            every = rows()
            while batch := list(islice(every, ROWS_AT_ONCE)):
                write(batch)
                if on_progress:
                    on_progress(counts["questions"] + counts["left_out"])
            if not kinds:
                raise NothingToDo(_nothing(export, counts["left_out"]))
    except OSError as error:
        raise StoreWriteFailed(f"{file} cannot be written: {error.strerror or error}.") from error
    training, last = scores or (None, None)
    return ExportSummary(
        str(file), export.shape, export.wanted.vote_id, dict(kinds), counts["questions"], counts["left_out"],
        counts["outdated"], training, last,
    )  # fmt: skip


def _splits(store: Store, dataset: Dataset, wanted: Wanted, scores: tuple[str, int] | None) -> list[str]:
    """The wanted splits, those with scores first: readers of JSONL guess a column's type from its first rows."""
    splits = [wanted.split] if wanted.split is not None else stored_splits(store, dataset.name)
    scored = store.query("SELECT DISTINCT split FROM scores WHERE run_id = $1", [scores[0] if scores else None])
    return sorted(splits, key=lambda split: (split not in scored["split"].to_pylist(), split))


def _rows_of(question: Row, dataset: Dataset, export: Export) -> Iterator[tuple[str, Row]]:
    """(kind, row) of one question, without the columns that all shapes have."""
    asked = dataset.student_input(question["question"], tuple(question["choices"])) + SEPARATOR
    explain = asked if export.asked == "question" else EXPLAIN + asked
    if export.shape == "rationales":
        for sample in question["samples"]:
            yield sample["standing"].side or "neither", _rationale(question, sample) | {"prompt": explain}
        return
    good, bad = (
        [sample for sample in question["samples"] if sample["standing"].side == side]
        for side in ("positive", "negative")
    )
    if export.shape == "preferences":
        for chosen, rejected in product(good, bad):
            row: Row = {"prompt": explain}
            for side, sample in (("chosen", chosen), ("rejected", rejected)):
                row |= {side: _completion(sample, export), f"{side}_answer": sample["answer"]}
                row |= {f"{side}_{name}": value for name, value in _weights(question, sample).items()}
            yield "pairs", row
        return
    for sample in good:
        row = {"prompt": explain, "completion": _completion(sample, export), "task": "explain"}
        yield "explain", row | _weights(question, sample)
    answer = _answer(question, dataset, export.labels)
    if answer is not None and export.asked == "student":
        share = question["share"] if export.labels == "teacher" else _share(question, lambda one: bool(one["correct"]))
        row = {"prompt": PREDICT + asked, "completion": answer, "task": "predict", "share": share, "count": 1}
        yield "predict", row | {"score": None}


def _rationale(question: Row, sample: Row) -> Row:
    standing = sample["standing"]
    copied = ("rationale", "answer", "correct", "parse_error", "text", "model", "sample_index", "sample_id")
    return (
        {name: sample[name] for name in copied}
        | {name: question[name] for name in ("question", "choices", "label", "winner", "tie")}
        | {"vote": standing.side or "neither", "reason": None if standing.side else standing.words}
        | _weights(question, sample)
    )


def _completion(sample: Row, export: Export) -> str:
    rationale = str(sample["rationale"])
    return with_answer(rationale, sample["answer"]) if export.asked == "question" else rationale


def _answer(question: Row, dataset: Dataset, labels: Labels) -> str | None:
    """What a student is to answer; None where nobody knows."""
    answer: str | None = question["winner" if labels == "teacher" else "label"]
    if dataset.target is not None:
        answer = str(json.loads(question["extra"] or "{}").get(dataset.target) or "").strip() or None
    return answer


def _weights(question: Row, sample: Row) -> Row:
    share = _share(question, lambda one: one["answer"] == sample["answer"]) if sample["answer"] is not None else None
    return {"share": share, "count": sample["standing"].count or 1, "score": sample["score"]}


def _share(question: Row, counts: Callable[[Row], bool]) -> float | None:
    """The share of a question's votes that count; None without votes."""
    votes = [sample for sample in question["samples"] if sample["votes"] and sample["answer"] is not None]
    return sum(map(counts, votes)) / len(votes) if votes else None


@contextmanager
def _writer(partial: Path, suffix: str, schema: pa.Schema) -> Iterator[Callable[[list[Row]], None]]:
    """A function that writes some rows at a time."""
    if suffix == ".parquet":
        with pq.ParquetWriter(partial, schema, compression="zstd") as parquet:
            yield lambda rows: parquet.write_table(pa.Table.from_pylist(rows, schema))
        return
    texts = {field.name for field in schema if field.type == pa.string()}
    with partial.open("w", encoding="utf-8") as lines:

        def write(rows: list[Row]) -> None:
            for row in rows:
                # No null among texts: `datasets` guesses a column's type from the file's first ten megabytes.
                values = {name: "" if row[name] is None and name in texts else row[name] for name in schema.names}
                lines.write(json.dumps(values, ensure_ascii=False) + "\n")

        yield write


def _nothing(export: Export, left_out: int) -> str:
    if not left_out:
        return "No question is chosen, so there is nothing to export."
    missing = {
        "sft": "a positive rationale or an answer" if export.asked == "student" else "a positive rationale",
        "preferences": "both a positive and a negative rationale",
        "rationales": "a teacher's sample",
    }[export.shape]
    return f"None of {left_out:,} questions has {missing} under vote {export.wanted.vote_id}: nothing to export."
