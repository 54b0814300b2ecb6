"""Which questions a run has chosen to ask: rows of the store, so that it asks the same ones wherever it goes on."""

from collections.abc import Sequence

import pyarrow as pa

from storage.schemas import CHOSEN
from storage.store import Store, now
from tasks.questions.choosing import Choose


def store_choice(
    store: Store, partition: dict[str, str], run_id: str, ids: Sequence[str], choose: Choose, student: str | None
) -> None:
    """Stores a run's choice, all of it or nothing.

    Args:
        partition: dataset and split.
        ids: in the order in which they are to be asked.
        choose: how they were chosen.
        student: who chose them, as NAME/VERSION.

    Raises:
        StoreWriteFailed: the store refused it.
    """
    moment = now()
    rows = [
        {"run_id": run_id, "example_id": one, **partition, "place": place, "choose": choose, "student": student,
         "created_at": moment}
        for place, one in enumerate(ids)
    ]  # fmt: skip
    store.append(CHOSEN, pa.Table.from_pylist(rows, CHOSEN.schema))


def choice_of(store: Store, partition: dict[str, str], run_id: str) -> list[str]:
    """The ids that a run has chosen, in their order; empty if it has not chosen, or nothing was left to choose."""
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT example_id FROM {store.relation(CHOSEN, partition)} WHERE run_id = $1 ORDER BY place",
            [run_id],
        )
    found: list[str] = rows["example_id"].to_pylist()
    return found


def chosen_by_others(store: Store, partition: dict[str, str], run_id: str) -> set[str]:
    """The ids that other runs have chosen."""
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT DISTINCT example_id FROM {store.relation(CHOSEN, partition)} WHERE run_id <> $1",
            [run_id],
        )
    return set(rows["example_id"].to_pylist())
