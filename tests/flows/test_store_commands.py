"""`qcrd store compact` and `prune` on the command line."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from mlflow import MlflowClient

from storage.schemas import RATIONALES
from storage.store import Store
from tests.conftest import Qcrd, figures
from tests.tasks.conftest import home_with

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def import_some(qcrd: Qcrd, folder: Path, teacher: str) -> None:
    rows = [
        {"question": f"Ann has {n} apples and buys 4. How many has she?", "label": str(n + 4),
         "samples": [{"teacher": teacher, "text": f"She has {n} + 4 = {n + 4}. So the answer is {n + 4}."}]}
        for n in range(3)
    ]  # fmt: skip
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    qcrd("import", folder / "samples.jsonl", "--dataset", "svamp")


def add_students(store: Store, *trainings: str) -> None:
    row: dict[str, Any] = {
        "example_id": "e",
        "dataset": "svamp",
        "split": "train",
        "source": "student",
        "model": "m",
        "text": "t",
    }
    row |= {"sample_index": 0, "created_at": LONG_AGO}
    new = [row | {"sample_id": f"of {training}", "run_id": training} for training in trainings]
    store.append(RATIONALES, pa.Table.from_pylist(new, RATIONALES.schema))


@pytest.fixture
def registered(mlflow_database: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return MlflowClient(f"sqlite:///{home_with(mlflow_database, home).resolve() / 'mlflow' / 'mlflow.db'}")


def register(client: MlflowClient, training: str, vote: str) -> None:
    tags = {"qcrd.training_id": training, "qcrd.vote_id": vote, "qcrd.dataset": "svamp"}
    if not client.search_registered_models("name = 'qcrd-svamp'"):
        client.create_registered_model("qcrd-svamp")
    client.create_model_version("qcrd-svamp", "file:///nowhere", tags=tags)


def test_compact_says_what_it_did(tmp_path: Path, home: Path, qcrd: Qcrd) -> None:
    for teacher in ("one", "two", "three"):
        import_some(qcrd, tmp_path, teacher)
    before = figures(qcrd("sql", "SELECT * FROM rationales ORDER BY sample_id", "--json"))
    done = qcrd("store", "compact")
    assert done.stdout.startswith("3 part files -> 1 (0.0 MiB -> 0.0 MiB)")
    assert "Replaced files: 0 deleted, 3 kept for those who still read them." in done.stderr
    assert figures(qcrd("sql", "SELECT * FROM rationales ORDER BY sample_id", "--json")) == before
    assert figures(qcrd("store", "compact", "--json"))["waiting"] == 3
    assert qcrd("store", "compact").stdout == "nothing to compact\n"
    for path in (home / "store").rglob("*.compacted.parquet"):  # as if it had been written a year ago
        path.rename(path.with_name(path.name.replace(path.name[5:9], str(int(path.name[5:9]) - 1))))
    assert "Replaced files: 3 deleted, 0 kept" in qcrd("store", "compact").stderr
    assert figures(qcrd("sql", "SELECT * FROM rationales ORDER BY sample_id", "--json")) == before
    assert qcrd("store", "check").stdout.endswith("sound\n")
    assert qcrd("store", "compact", "--keep-replaced", "1 day", code=2).stderr == (
        "qcrd: --keep-replaced takes a number and m, h or d, such as 30m, 6h or 1d, not '1 day'.\n"
    )


def test_prune_shows_first_and_keeps_what_a_registered_model_learned_from(
    tmp_path: Path, home: Path, qcrd: Qcrd, registered: MlflowClient
) -> None:
    import_some(qcrd, tmp_path, "big")
    store = Store(home / "store")
    add_students(store, "forgotten", "registered", "unfinished")
    register(registered, "registered", "v")
    (home / "trainings" / "unfinished").mkdir(parents=True)
    (home / "trainings" / "unfinished" / "training.json").touch()
    rule = ("store", "prune", "--student-samples-older-than", "90d")
    shown = qcrd(*rule)
    assert shown.stdout == "--student-samples-older-than: 1 rows of rationales, about 0.0 MiB\n"
    assert shown.stderr == "Nothing was removed; --yes removes it.\n"
    sql = ("sql", "SELECT sample_id FROM rationales WHERE source = 'student' ORDER BY ALL", "--json")
    assert len(figures(qcrd(*sql))) == 3
    got = figures(qcrd(*rule, "--yes", "--json"))
    assert (got["removed"], got["rows_removed"]) == (True, 1)
    assert [row["sample_id"] for row in figures(qcrd(*sql))] == ["of registered", "of unfinished"]
    assert qcrd(*rule, "--yes").stdout == "nothing to remove\n"
    # a training's folder that nobody has used goes, and its samples with it
    os.utime(home / "trainings" / "unfinished" / "training.json", (1, 1))
    both = (*rule, "--trainings-older-than", "90d")
    assert qcrd(*both).stdout.splitlines()[0] == "--trainings-older-than: 1 folders of trainings, about 0.0 MiB"
    assert figures(qcrd(*both, "--yes", "--json"))["rows_removed"] == 1
    assert [row["sample_id"] for row in figures(qcrd(*sql))] == ["of registered"]
    assert list((home / "trainings").iterdir()) == []


def test_a_teacher_stays_while_a_registered_model_learned_from_its_votes(
    tmp_path: Path, home: Path, qcrd: Qcrd, registered: MlflowClient
) -> None:
    for teacher in ("big", "small"):
        import_some(qcrd, tmp_path, teacher)
    vote = figures(qcrd("vote", "--dataset", "svamp", "--teacher", "big", "--json"))["vote_id"]
    register(registered, "registered", vote)
    refused = qcrd("store", "prune", "--teacher", "big", "--yes", code=2).stderr
    assert refused.startswith("qcrd: qcrd-svamp version 1 learned from votes that count samples of 'big' on 'svamp'")
    assert figures(qcrd("store", "prune", "--teacher", "small", "--yes", "--json"))["rows_removed"] == 3
    assert figures(qcrd("sql", "SELECT DISTINCT model FROM rationales", "--json")) == [{"model": "big"}]
    # a version whose votes are not in this store: they may have counted anybody
    register(registered, "another", "elsewhere")
    assert "qcrd-svamp version" in qcrd("store", "prune", "--teacher", "big", code=2).stderr
    for version in ("1", "2"):
        registered.delete_model_version("qcrd-svamp", version)
    assert "Vote again" in qcrd("store", "prune", "--teacher", "big", "--yes").stderr
    assert len(Store(home / "store").query("SELECT 1 FROM rationales")) == 0


def test_prune_without_a_rule_names_them(qcrd: Qcrd) -> None:
    assert qcrd("store", "prune", code=2).stderr.startswith("qcrd: Name a rule: --student-samples-older-than 90d, ")
    assert qcrd("store", "prune", "--superseded", "--dataset", "svamp", code=2).stderr == (
        "qcrd: --dataset goes with --teacher.\n"
    )
