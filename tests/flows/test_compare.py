"""`qcrd compare`: every variant with every seed, once; the same command goes on; equal time; report and judge."""

import json
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import yaml

from flows.report.document import escaped
from storage.store import Store
from tasks.tracking.client import open_tracking
from tests.conftest import Qcrd, build_tiny_llama, figures
from tests.flows.own_data import write_own_data
from tests.flows.report.test_page import Read
from tests.tasks.comparing.judge_endpoint import judging, prefers
from tests.warm_start import WarmStart

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("databases")]

COMPARISON = {
    "base": "small.yaml",
    "settings": {"rounds": {"rounds": 1, "epochs_per_round": 2}},
    "variants": {"dss": {"method": {"name": "dss"}}, "qcrd": {"negatives": {"lag": 1}}},
    "baseline": "dss",
    "seeds": 2,
}
JUDGE = {"model": "wise"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, **changes: object) -> None:
    (folder / "compare.yaml").write_text(yaml.safe_dump(COMPARISON | changes), encoding="utf-8")


def test_a_variant_that_can_come_to_nothing_is_refused_first(here: Path, home: Path, qcrd: Qcrd) -> None:
    write(here, variants={"dss": {"method": {"name": "dss"}}, "sure": {"registry": {"risk": 0.001}}})
    assert "registry.risk is 0.001" in qcrd("compare", "compare.yaml", code=2).stderr
    assert Store(home / "store").query("SELECT 1 FROM votes").num_rows == 0, "nor is a teacher asked"


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


def test_the_report_is_a_file_an_artifact_in_mlflow_and_one_in_prefect(here: Path, home: Path, qcrd: Qcrd) -> None:
    write(here, seeds=1)
    done = qcrd("compare", "compare.yaml")
    report = home / "reports" / "compare.html"
    assert done.stdout.splitlines()[-1] == f"Report: {report.resolve()}"
    text = report.read_text(encoding="utf-8")
    read = Read(text)
    assert "Examples" in read.headings
    assert "The discriminator's scores" in read.headings
    result = figures(qcrd("compare", "compare.yaml", "--json", "--report", here / "new" / "other.html"))
    assert result["report"] == str(here / "new" / "other.html")
    assert (here / "new" / "other.html").read_text(encoding="utf-8") == text
    words = " ".join(read.text.split())
    for difference in result["differences"]:
        assert difference["sentence"] in words
    for row in result["variants"]:
        assert {"agreement", "without_steps"} <= row["quality"].keys()
        assert ("score_right" in row["quality"]) == (row["variant"] == "qcrd")
    # What a student said to a question is on the page.
    said = Store(home / "store").query("SELECT * FROM predictions WHERE split = 'test' AND rationale <> ''")
    assert any(escaped(text_) in text for text_ in said["rationale"].to_pylist())

    tracking = open_tracking(home)
    run = tracking.client.get_run(result["mlflow_run"])
    assert tracking.client.get_experiment(run.info.experiment_id).name == "compare"
    assert {file.path for file in tracking.client.list_artifacts(run.info.run_id)} == {
        "compare.html", "other.html", "config.yaml",
    }  # fmt: skip
    for row in result["variants"]:
        assert run.data.metrics[f"{row['variant']}/answers"] == row["figures"]["answers"][0]
    with closing(sqlite3.connect(home / "prefect" / "prefect.db")) as database:
        told = database.execute("SELECT data FROM artifact WHERE key = 'comparison'").fetchall()
    assert len(told) == 2
    assert "cannot be told" in told[0][0] or "is better" in told[0][0] or "is worse" in told[0][0]


def test_a_judge_is_asked_once_and_by_whoever_runs_it_first(here: Path, qcrd: Qcrd) -> None:
    with judging(prefers("s")) as judge:
        write(here, seeds=1, judge={"url": judge.url, "model": "wise", "questions": 6})
        first = figures(qcrd("compare", "compare.yaml", "--json"))
        [judged] = first["judged"]
        assert judged["wins"] + judged["ties"] + judged["losses"] == 6
        assert len(judge.bodies) == 2 * (6 - judged["same"])
        asked = len(judge.bodies)
        again = figures(qcrd("compare", "compare.yaml", "--json", "--report", here / "report.html"))
        assert again["judged"] == first["judged"]
        assert len(judge.bodies) == asked, "what is stored is not asked again"
    assert "Preferred by a judge" in Read((here / "report.html").read_text(encoding="utf-8")).headings
    assert judged["sentence"] in " ".join(Read((here / "report.html").read_text(encoding="utf-8")).text.split())


def test_a_judge_that_vllm_serves_here(here: Path, home: Path, qcrd: Qcrd) -> None:
    model = build_tiny_llama(here / "judge", context=4096)  # a token is about a letter of the instruction
    write(here, seeds=1, judge={"model": str(model), "questions": 4, "max_tokens": 8})
    done = qcrd("compare", "compare.yaml", "--json")
    [judged] = figures(done)["judged"]
    asked = 4 - judged["same"]
    assert asked, "they would have to write the same to all"
    assert judged["wins"] + judged["ties"] + judged["losses"] == 4
    told = Store(home / "store").query("SELECT judge, text, preferred, completion_tokens FROM judgements").to_pylist()
    assert len(told) == 2 * asked, "both orders"
    assert judged["unread"] <= asked
    assert all(0 < row["completion_tokens"] <= 8 for row in told)
    assert "judgements to make" in done.stderr
    again = qcrd("compare", "compare.yaml", "--json")
    assert figures(again)["judged"] == [judged]
    assert "judgements to make" not in again.stderr, "nor is the judge started"


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
        ({"settings": {"teacher": {"source": "sample", "files": [], "model": "m", "url": "http://h/v1",
                                   "budget": {"questions": 3}}}}, "so leave teacher.budget and the section variants"),
        ({"shares": [2.0]}, "shares must lie above 0"),
        ({"variants": {"dss": {}, "qcrd": {"methd": {}}}}, "variant qcrd: Unknown key 'methd'"),
        ({"base": "nowhere"}, "nowhere"),
        ({"seed": 3}, "seed"),
        ({"judge": {**JUDGE, "url": "wise.example/v1"}}, "judge.url: it must be like http://host:8000/v1"),
        ({"judge": {**JUDGE, "url": "http://h/v1", "key_secret": "sk-planted"}},  # pragma: allowlist secret
         "not the key itself"),
        ({"judge": {**JUDGE, "key_secret": "judge"}}, "`key_secret` belongs to `url`"),  # pragma: allowlist secret
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_runs(
    here: Path, home: Path, qcrd: Qcrd, changes: dict[str, object], said: str
) -> None:
    write(here, **changes)
    done = qcrd("compare", "compare.yaml", code=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "sk-planted" not in done.stderr
    assert not (home / "trainings").exists()


@pytest.mark.parametrize("place", [".", "compare.yaml/report.html"])
def test_a_report_that_cannot_be_written_is_told_before_anything_runs(
    here: Path, home: Path, qcrd: Qcrd, place: str
) -> None:
    write(here)
    done = qcrd("compare", "compare.yaml", "--report", place, code=2)
    assert done.stderr.strip().endswith("is a folder, or below a file; give the path of an HTML file.")
    assert not (home / "trainings").exists()


def test_stopped_it_leaves_nothing_running_and_goes_on(
    here: Path, home: Path, qcrd: Qcrd, warm_start: WarmStart
) -> None:
    write(here, settings={"rounds": {"rounds": 3, "epochs_per_round": 2}}, seeds=1)
    with warm_start.start(
        home, "compare", "compare.yaml", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
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
