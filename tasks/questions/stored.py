"""Stores a dataset's questions."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from storage.datasets.definition import Dataset, Example
from storage.datasets.layout import CUT
from storage.ids import example_id
from storage.schemas import EXAMPLES
from storage.store import Store, now


@dataclass(frozen=True)
class ExamplesStored:
    """The outcome of storing questions.

    Attributes:
        example_ids: one per distinct question, in order of first appearance.
        added, changed, unchanged: how many were new, had a new label or new extra fields, or were known already.
        repeated: repetitions of a question, which are the same example.
        notes: what was left out, a sentence for each field that was shortened, and one if questions were forgotten.
    """

    example_ids: list[str]
    added: int
    changed: int
    unchanged: int
    repeated: int
    notes: list[str]


def store_examples(store: Store, dataset: Dataset, split: str, examples: Iterable[Example]) -> ExamplesStored:
    """Stores questions; known ones are left alone, and a label that arrives later is added to its question.

    Those that were forgotten (`qcrd forget`) are left out.

    Raises:
        StoreWriteFailed, DamagedPart: from the store.
    """
    incoming: dict[str, Example] = {}
    repeated = 0
    forgotten: set[str] = set()
    store.forgotten.ids()
    for example in examples:
        key = example_id(dataset.name, split, example.question, example.choices)
        if store.forgotten.holds(key, example.question, example.choices):
            forgotten.add(key)
            continue
        known = incoming.get(key)
        repeated += known is not None
        incoming[key] = example if known is None else _joined(known, example)
    partition = {"dataset": dataset.name, "split": split}
    with store.lock(f"examples {dataset.name}/{split}"):
        for key, stored in _stored_examples(store, partition, incoming).items():
            incoming[key] = _joined(stored, incoming[key])
        time = now()
        rows = [
            {
                "example_id": key,
                "dataset": dataset.name,
                "split": split,
                "question": example.question,
                "choices": list(example.choices),
                "label": example.label,
                "extra": json.dumps(dict(example.extra), ensure_ascii=False, sort_keys=True),
                "created_at": time,
            }
            for key, example in incoming.items()
        ]
        counts = store.upsert(EXAMPLES, pa.Table.from_pylist(rows, EXAMPLES.schema))
    notes = _cut(incoming.values())
    if forgotten:
        total = len(forgotten) + len(incoming)
        notes.append(f"{len(forgotten):,} of {total:,} questions were forgotten (`qcrd forget`) and are left out.")
    return ExamplesStored(list(incoming), *counts, repeated, notes)


def _cut(examples: Iterable[Example]) -> list[str]:
    """What was left out of questions, a sentence for each field."""
    words: dict[str, list[int]] = {}
    total = 0
    for example in examples:
        total += 1
        cut = example.extra.get(CUT)
        for field, count in cut.items() if isinstance(cut, dict) else ():  # a file may have a column of that name
            words.setdefault(field, []).append(count)
    return [
        f"{len(counts):,} of {total:,} questions hold only the beginning of {field!r} (the longest has {max(counts):,} "
        f"words): most_words.{field} says how much."
        for field, counts in words.items()
    ]


def _joined(known: Example, new: Example) -> Example:
    """One question from two sources.

    A label stays if the new source has none; a corrected label replaces it. Extra fields keep the value that was known
    first, so that importing two files in turn does not change them back and forth.
    """
    label = new.label if new.label is not None else known.label
    return Example(known.question, known.choices, label, {**new.extra, **known.extra})


def _stored_examples(store: Store, partition: dict[str, str], wanted: dict[str, Example]) -> dict[str, Example]:
    with store.connect() as con:
        con.register("wanted", pa.table({"example_id": pa.array(list(wanted), pa.string())}))
        rows = store.execute(
            con,
            f"SELECT example_id, question, choices, label, extra FROM {store.relation(EXAMPLES, partition)} "
            "SEMI JOIN wanted USING (example_id)",
        ).to_pylist()
    return {
        row["example_id"]: Example(row["question"], tuple(row["choices"]), row["label"], json.loads(row["extra"]))
        for row in rows
    }
