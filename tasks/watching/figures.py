"""Figures of runs over time: rows of the store's `figures` table, for drift checks, dashboards and `qcrd sql`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from storage.schemas import FIGURES
from storage.store import Store, now


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        value: the number; None if there is none.
        detail: what one number cannot say; kept as JSON.
    """

    value: float | None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """Figures of a run.

    Attributes:
        run_id: the run's id.
        at: when they were stored, UTC.
        figures: by name.
    """

    run_id: str
    at: datetime
    figures: Mapping[str, Figure]


def store_figures(store: Store, run_id: str, dataset: str, figures: Mapping[str, Figure | float | None]) -> None:
    """Stores figures of a run; storing them again replaces those that changed.

    Raises:
        StoreWriteFailed: the store refused it.
    """
    moment = now()
    rows = []
    for name, figure in figures.items():
        one = figure if isinstance(figure, Figure) else Figure(figure)
        if one.value is not None:
            detail = json.dumps(dict(one.detail), sort_keys=True) if one.detail else None
            rows.append({"run_id": run_id, "name": name, "dataset": dataset, "value": float(one.value),
                         "detail": detail, "created_at": moment})  # fmt: skip
    with store.lock("figures"):
        store.upsert(FIGURES, pa.Table.from_pylist(rows, FIGURES.schema))


def figures_of(store: Store, run_id: str, dataset: str) -> dict[str, Figure]:
    """A run's stored figures; empty if there are none."""
    return dict(_read(store, dataset, "run_id = $1", run_id))


def last_with(store: Store, dataset: str, name: str, but: str) -> Measured | None:
    """The figures of the last run, other than `but`, that stored `name`; None if there is none."""
    with store.connect() as con:
        found = store.execute(
            con,
            f"SELECT run_id, created_at FROM {store.relation(FIGURES, {'dataset': dataset})} "
            "WHERE name = $1 AND run_id <> $2 ORDER BY created_at DESC, run_id LIMIT 1",
            [name, but],
        ).to_pylist()
    if not found:
        return None
    return Measured(found[0]["run_id"], found[0]["created_at"], figures_of(store, found[0]["run_id"], dataset))


def _read(store: Store, dataset: str, condition: str, *values: Any) -> list[tuple[str, Figure]]:
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT name, value, detail FROM {store.relation(FIGURES, {'dataset': dataset})} "
            f"WHERE {condition} ORDER BY name",
            list(values),
        ).to_pylist()
    return [(row["name"], Figure(row["value"], json.loads(row["detail"] or "{}"))) for row in rows]
