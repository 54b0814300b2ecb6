"""`qcrd compare`: every variant with every seed, once; the same command goes on; equal time; what is told."""

import json
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml

from storage.store import Store
from tests.conftest import Qcrd, figures, qcrd_command
from tests.flows.own_data import write_own_data

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("databases")]

COMPARISON = {
    "base": "small.yaml",
    "settings": {"rounds": {"rounds": 1, "epochs_per_round": 2}},
    "variants": {"dss": {"method": {"name": "dss"}}, "qcrd": {"negatives": {"lag": 1}}},
    "baseline": "dss",
    "seeds": 2,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, **changes: object) -> None:
    (folder / "compare.yaml").write_text(yaml.safe_dump(COMPARISON | changes), encoding="utf-8")


def test_all_cells_once_and_another_seed_costs_only_itself(here: Path, home: Path, qcrd: Qcrd) -> None:
    write(here)
    first = figures(qcrd("compare", "compare.yaml", "--json"))
    assert [(row["variant"], row["seeds"], row["questions"]) for row in first["variants"]] == [
        ("dss", 2, 10),
        ("qcrd", 2, 10),
    ]
    folders = {path.parent for path in (home / "trainings").glob("*/training.json")}
    assert len(folders) == 4
    (difference,) = [row for row in first["differences"] if row["figure"] == "answers"]
    assert (difference["variant"], difference["against"]) == ("qcrd", "dss")
    assert difference["low"] <= difference["difference"] <= difference["high"]
    # What it says is what the predictions say.
    rows = Store(home / "store").query(
        "SELECT model, avg(correct::int) AS right FROM predictions WHERE split = 'test' GROUP BY 1"
    )
    right: dict[str, list[float]] = {row["model"].split("-")[1]: [] for row in rows.to_pylist()}
    for row in rows.to_pylist():
        right[row["model"].split("-")[1]].append(row["right"])
    for row in first["variants"]:
        assert row["figures"]["answers"][0] == pytest.approx(sum(right[row["variant"]]) / 2)

    before = {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*.safetensors")}
    write(here, seeds=3)
    more = figures(qcrd("compare", "compare.yaml", "--json"))
    assert [row["seeds"] for row in more["variants"]] == [3, 3]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((home / "trainings").glob("*/training.json"))) == 6


def test_equal_time_trains_the_baseline_for_as_long(here: Path, home: Path, qcrd: Qcrd) -> None:
    write(here, equal="time", seeds=1)
    done = qcrd("compare", "compare.yaml")
    lines = done.stdout.splitlines()
    longer = [line for line in lines if line.startswith("dss, ")]
    assert len(longer) == 1, "a qcrd takes longer than a dss"
    assert " rounds" in longer[0]
    assert any("cannot be told" in line or "is better" in line or "is worse" in line for line in lines)
    assert any("dss with " in line for line in lines)
    specs = [json.loads(path.read_text()) for path in (home / "trainings").glob("*/training.json")]
    rounds = sorted((spec["config"]["method"]["name"], spec["config"]["rounds"]["rounds"]) for spec in specs)
    assert [name for name, _ in rounds] == ["dss", "dss", "qcrd"]
    assert rounds[1][1] > rounds[0][1] == rounds[2][1] == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline": "mi"}, "baseline: 'mi' is no variant; there are dss, qcrd"),
        ({"shares": [0.5]}, "shares below 1 need dataset.limit"),
        ({"shares": [2.0]}, "shares must lie above 0"),
        ({"variants": {"dss": {}, "qcrd": {"methd": {}}}}, "variant qcrd: Unknown key 'methd'"),
        ({"base": "nowhere"}, "nowhere"),
        ({"seed": 3}, "seed"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    here: Path, home: Path, qcrd: Qcrd, changes: dict[str, object], said: str
) -> None:
    write(here, **changes)
    done = qcrd("compare", "compare.yaml", code=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "trainings").exists()


def test_stopped_it_leaves_nothing_running_and_goes_on(here: Path, home: Path, qcrd: Qcrd) -> None:
    write(here, settings={"rounds": {"rounds": 3, "epochs_per_round": 2}}, seeds=1)
    command = qcrd_command(home, "compare", "compare.yaml")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list((home / "trainings").glob("*/round-000/trained.json")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    first = next((home / "trainings").glob("*/round-000/trained.json"))
    written = first.stat().st_mtime_ns
    assert len(figures(qcrd("compare", "compare.yaml", "--json"))["variants"]) == 2
    assert first.stat().st_mtime_ns == written
