"""Reads stored teacher samples again: all of them after the dataset's definition has changed (`read_again`), and before
every sampling those that another choice of the rationale concerns (`read_thoughts_again`).

A sample is stored with what was read when it came, and stays so until it is read again here; nobody is asked twice.
Recorded samples are read again by importing their file again, because only the import knows whether the file's own
answers count.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from storage.datasets.definition import Dataset
from storage.errors import NothingToDo
from storage.ids import rationale_hash
from storage.schemas import EXAMPLES, RATIONALES
from storage.store import Store, now
from tasks.teacher.reading import CUT_SHORT, Rationale, read_sample

ROWS_AT_ONCE = 100_000
COLUMNS = ", ".join(f'r."{name}"' for name in RATIONALES.schema.names)
MARKS = (
    r"(?i)think(ing)?\s?[\]>▷]|<(\w+:)?think\s|thoughts?\s?>|reasoning\s?>|scratchpad\s?>|_thought\||_THINKING\||"
    r"_think:plamo|<\|channel|assistantfinal|thought process:"
)
"""What a text with a thought in it holds, as DuckDB finds it; a text that only looks like it is read as it was."""


@dataclass(frozen=True)
class ReadAgain:
    """What reading again did, in samples.

    Attributes:
        samples: those that were read.
        changed: those whose answer, reason, thought or rationale is now another.
        answered: those that had no answer and now have one.
        unanswered: those that had one and now have none.
    """

    samples: int = 0
    changed: int = 0
    answered: int = 0
    unanswered: int = 0


def read_again(
    store: Store, dataset: Dataset, split: str | None = None, on_progress: Callable[[int], None] | None = None
) -> ReadAgain:
    """Reads every teacher sample of a dataset (or of one split) again, and revises those that read otherwise.

    Args:
        on_progress: called with the number of samples read so far.

    Raises:
        NothingToDo: no teacher samples are stored.
    """
    total = ReadAgain()
    for name, rows in _stored(store, dataset.name, split):
        revised = []
        answered = unanswered = 0
        for row in rows.to_pylist():
            read = _read(dataset, row, row["rationale_from"] or "auto")
            if _different(row, read):
                answered += row["answer"] is None and read["answer"] is not None
                unanswered += row["answer"] is not None and read["answer"] is None
                revised.append(_revised(row, read))
        if revised:
            with store.lock(f"read again {dataset.name}/{name}"):
                store.upsert(RATIONALES, pa.Table.from_pylist(revised, RATIONALES.schema))
        total = replace(
            total,
            samples=total.samples + rows.num_rows,
            changed=total.changed + len(revised),
            answered=total.answered + answered,
            unanswered=total.unanswered + unanswered,
        )
        if on_progress:
            on_progress(total.samples)
    if not total.samples:
        chosen = f"{dataset.name!r}" + (f", split {split!r}" if split else "")
        raise NothingToDo(
            f"No teacher samples of {chosen} are stored at {store.files.given}. "
            "Recorded ones are read again when their file is imported again."
        )
    return total


def read_thoughts_again(
    store: Store, dataset: Dataset, split: str, example_ids: Iterable[str], model: str, rationale: Rationale
) -> int:
    """Reads a teacher's samples of some questions again where that may give something else.

    That are thoughts under another choice of the rationale, and what an older version, which knew neither thoughts nor
    unfinished texts, may have misread. The caller holds the lock under which this teacher is sampled.

    Returns:
        How many samples read differently now; they are revised.
    """
    partition = {"dataset": dataset.name, "split": split}
    with store.connect() as con:
        con.register("wanted", pa.table({"example_id": pa.array(list(example_ids), pa.string())}))
        rows = store.execute(
            con,
            f"SELECT {COLUMNS}, e.choices FROM {store.relation(RATIONALES, {**partition, 'source': 'teacher'})} r "
            f"JOIN {store.relation(EXAMPLES, partition)} e USING (example_id) SEMI JOIN wanted USING (example_id) "
            "WHERE r.model = $model AND CASE WHEN r.rationale_from IS NULL "
            "THEN list_contains($cut_short, r.finish_reason) OR regexp_matches(r.text, $marks) "
            "ELSE r.thought IS NOT NULL AND r.rationale_from <> $rationale END ORDER BY r.sample_id",
            {"model": model, "cut_short": list(CUT_SHORT), "marks": MARKS, "rationale": rationale},
        ).to_pylist()
    read = [_read(dataset, row, rationale) for row in rows]
    if rows:
        # Those that read the same, too: they are stored with the choice, and not read again before the next sampling.
        revised = [_revised(row, fresh) | {"rationale_from": rationale} for row, fresh in zip(rows, read, strict=True)]
        store.upsert(RATIONALES, pa.Table.from_pylist(revised, RATIONALES.schema))
    return sum(_different(row, fresh) for row, fresh in zip(rows, read, strict=True))


def _read(dataset: Dataset, row: dict[str, Any], rationale: Rationale) -> dict[str, Any]:
    """What follows from a stored sample's text today. The row has its question's `choices`."""
    reading = read_sample(
        dataset, tuple(row["choices"] or ()), row["text"] or "", thought=row["thought"],
        finish_reason=row["finish_reason"], rationale=rationale,
    )  # fmt: skip
    return {
        "thought": reading.thought,
        "rationale": reading.parsed.rationale,
        "answer": reading.parsed.answer,
        "parse_error": reading.parsed.parse_error,
    }


def _different(row: dict[str, Any], read: dict[str, Any]) -> bool:
    return any(row[name] != value for name, value in read.items())


def _revised(row: dict[str, Any], read: dict[str, Any]) -> dict[str, Any]:
    stored = {name: value for name, value in row.items() if name != "choices"}
    return stored | read | {"rationale_hash": rationale_hash(read["rationale"]), "created_at": now()}


def _stored(store: Store, dataset: str, split: str | None) -> Iterator[tuple[str, pa.Table]]:
    """(split, samples with the choices of their question), some at a time."""
    counts = store.query(
        "SELECT split, count(*) AS n FROM rationales WHERE dataset = $1 AND source = 'teacher' "
        "AND ($2::VARCHAR IS NULL OR split = $2) GROUP BY split ORDER BY split",
        [dataset, split],
    ).to_pylist()
    for row in counts:
        passes = -(-row["n"] // ROWS_AT_ONCE)
        for number in range(passes):
            yield (
                row["split"],
                store.query(
                    f"SELECT {COLUMNS}, e.choices FROM rationales r LEFT JOIN examples e USING (example_id) "
                    "WHERE r.dataset = $1 AND r.split = $2 AND r.source = 'teacher' "
                    "AND hash(r.example_id) % $3 = $4 ORDER BY r.sample_id",
                    [dataset, row["split"], passes, number],
                ),
            )
