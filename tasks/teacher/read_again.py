"""Reads the answers of stored teacher samples again, after the dataset's definition or the parser has changed.

A sample is stored with the answer that was read when it came, and stays so until it is read again here. Recorded
samples are read again by importing their file again, because only the import knows whether the file's own answers
count.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pyarrow as pa

from storage.datasets.definition import Dataset
from storage.errors import NothingToDo
from storage.ids import rationale_hash
from storage.schemas import RATIONALES
from storage.store import Store, now

ROWS_AT_ONCE = 100_000


@dataclass(frozen=True)
class ReadAgain:
    """What reading again did, in samples.

    Attributes:
        samples: those that were read.
        changed: those whose answer, reason or rationale is now another.
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
            parsed = dataset.parse(row["text"] or "", tuple(row.pop("choices") or ()))
            if (parsed.answer, parsed.parse_error, parsed.rationale) != (
                row["answer"],
                row["parse_error"],
                row["rationale"],
            ):
                answered += row["answer"] is None and parsed.answer is not None
                unanswered += row["answer"] is not None and parsed.answer is None
                reading = {"answer": parsed.answer, "parse_error": parsed.parse_error, "rationale": parsed.rationale}
                revised.append(
                    row | reading | {"rationale_hash": rationale_hash(parsed.rationale), "created_at": now()}
                )
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


def _stored(store: Store, dataset: str, split: str | None) -> Iterator[tuple[str, pa.Table]]:
    """(split, samples with the choices of their question), some at a time."""
    counts = store.query(
        "SELECT split, count(*) AS n FROM rationales WHERE dataset = $1 AND source = 'teacher' "
        "AND ($2::VARCHAR IS NULL OR split = $2) GROUP BY split ORDER BY split",
        [dataset, split],
    ).to_pylist()
    columns = ", ".join(f'r."{name}"' for name in RATIONALES.schema.names)
    for row in counts:
        passes = -(-row["n"] // ROWS_AT_ONCE)
        for number in range(passes):
            yield (
                row["split"],
                store.query(
                    f"SELECT {columns}, e.choices FROM rationales r LEFT JOIN examples e USING (example_id) "
                    "WHERE r.dataset = $1 AND r.split = $2 AND r.source = 'teacher' "
                    "AND hash(r.example_id) % $3 = $4 ORDER BY r.sample_id",
                    [dataset, row["split"], passes, number],
                ),
            )
