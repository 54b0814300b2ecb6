"""Nothing is sampled twice because a table gained a column."""

from pathlib import Path

import pyarrow as pa
import pytest

from models.teacher import SamplingConfig
from storage.datasets.registry import get_dataset
from storage.schemas import EXAMPLES, RATIONALES
from storage.store import Store
from tasks.teacher.planning import TeacherIdentity, plan_sampling
from tests.storage.first_schema import ROW, write_part


def test_samples_of_older_parts_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, svamp = Store(tmp_path), get_dataset("svamp")
    write_part(store, "examples", [ROW])

    def plan() -> tuple[int, list[str]]:
        planned = plan_sampling(
            Store(tmp_path), svamp, "train", [ROW["example_id"]], TeacherIdentity("big"), SamplingConfig(n=5), 0
        )
        return planned.stored, [key for request in planned.requests for key in request.sample_ids]

    stored, missing = plan()
    assert (stored, len(missing)) == (0, 5)
    write_part(store, "rationales", [{**ROW, "sample_id": key} for key in missing[:3]])
    for table in (EXAMPLES, RATIONALES):
        monkeypatch.setitem(vars(table), "schema", table.schema.append(pa.field("cost", pa.float64())))
    assert plan() == (3, missing[3:])
