"""`qcrd forget` after a distillation and a comparison: every file is searched, and it is killed on the way."""

import json
import multiprocessing
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from storage.compaction import rewriting
from storage.errors import UsageError
from storage.locks import file_lock
from storage.pruning import prune, student_samples
from storage.store import Store, now
from tasks.forgetting.affected import affected_by
from tasks.forgetting.forget import forget
from tasks.tracking.client import open_tracking
from tasks.tracking.forgotten import FORGOTTEN
from tasks.training.folder import Training, trainings_in
from tests.conftest import Qcrd, checked, figures
from tests.flows.own_data import write_own_data
from tests.planted import places_of
from tests.storage.test_compaction import until_write
from tests.warm_start import WarmStart

pytestmark = pytest.mark.slow

TWICE = "zanzibarquux"
"""A word of a question and of what the teacher said: so often that a new student's tokenizer learns it."""
COMPARISON = {
    "base": "small.yaml",
    "settings": {"rounds": {"rounds": 1, "epochs_per_round": 1}},
    "variants": {"dss": {"method": {"name": "dss"}}, "finetune": {"method": {"name": "finetune"}}},
    "baseline": "dss",
    "seeds": 1,
}
KILLS = 14


@dataclass(frozen=True)
class Distilled:
    """A folder in which something was distilled and compared.

    Attributes:
        folder: the data, and `home`.
        words: what each question alone says; the first of them are to be forgotten.
        before: a copy of `home`.
    """

    folder: Path
    words: list[str]
    before: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def where(self) -> str:
        return " OR ".join(f"contains(question, '{word}')" for word in self.words)


def plant(folder: Path) -> list[str]:
    """Puts a word of its own into every question; returns them."""
    words = []
    for name in ("train", "samples", "test"):
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            word = f"zz{'te' if name == 'test' else 'tr'}{number:03d}q" if number != 4 or name == "test" else TWICE
            words.append(word)
            row = json.loads(line)
            row["body"] = row["body"].replace("nuts", word)
            if word == TWICE and name == "samples":
                row["samples"][1]["text"] = f"{TWICE}: " + row["samples"][1]["text"]
            lines[number] = json.dumps(row)
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return list(dict.fromkeys(words))


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory, warm_start: WarmStart) -> Distilled:
    """Words are chosen so that each kind of place quotes one of them."""
    folder = tmp_path_factory.mktemp("forget")
    home = folder / "home"
    write_own_data(folder)
    words = plant(folder)
    (folder / "compare.yaml").write_text(yaml.safe_dump(COMPARISON), encoding="utf-8")
    for command in (["distill", "small.yaml", "--set", "rounds.rounds=2"], ["compare", "compare.yaml"]):
        checked(warm_start.run(home, *command, cwd=folder), 0)
    where = places_of({word: word for word in words}, home / "prefect", home / "mlflow", home / "reports")
    chosen = {TWICE}
    for place in (r"prefect/prefect\.db", r"/input_example\.json", r"/serving_input_example\.json",
                  r"reports/compare\.html", r"mlflow/artifacts/.*/compare\.html"):  # fmt: skip
        quoted = [word for word, files in where.items() if any(re.search(place, file) for file in files)]
        assert quoted, f"nothing is quoted in {place}: this would show nothing"
        chosen |= set(quoted[:2])
    shutil.copytree(home, folder / "before")
    return Distilled(folder, sorted(chosen), folder / "before")


def left(home: Path, words: list[str]) -> set[str]:
    """Where words still are, but for the tokenizers of registered students."""
    files = {file for files in places_of({word: word for word in words}, home).values() for file in files}
    return {file for file in files if not re.search(r"/mlflow/artifacts/models/.*/tokenizer\.json$", file)}


def test_killed_on_the_way_the_same_again_ends_the_work(distilled: Distilled) -> None:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    places = distilled.folder / "copies"

    def run(home: Path, kill_at: int) -> tuple[int | None, int]:
        writes = server.Value("i", 0)
        process = server.Process(target=until_write, args=(Forget(distilled.where), str(home), kill_at, writes))
        process.start()
        process.join()
        return process.exitcode, writes.value

    shutil.copytree(distilled.before, places / "calm")
    code, writes = run(places / "calm", 0)
    assert (code, writes > 50) == (0, True), writes
    assert left(places / "calm", distilled.words) == set()
    reference = audit(places / "calm")
    assert {row["state"] for row in reference} == {"done"}
    assert sum(bool(row["trainings"]) for row in reference) >= 1
    step = max(1, writes // KILLS)
    for number in range(step // 2 + 1, writes + 1, step):
        home = places / f"killed-{number}"
        shutil.copytree(distilled.before, home)
        assert run(home, number)[0] == -signal.SIGKILL
        assert run(home, 0)[0] == 0, f"killed before write {number} of {writes}"
        assert left(home, distilled.words) == set(), f"killed before write {number} of {writes}"
        assert audit(home) == reference, f"killed before write {number} of {writes}"
        assert marked(home) == marked(places / "calm")
        shutil.rmtree(home)


class Forget:
    """What the killed process does."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __call__(self, home: str) -> None:
        forget(Path(home), Store(Path(home, "store")), [], self.where)


def audit(home: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = (
        Store(home / "store")
        .query("SELECT * EXCLUDE (forgotten_at, created_at) FROM forgotten ORDER BY example_id")
        .to_pylist()
    )
    return rows


def marked(home: Path) -> dict[str, int]:
    """Version, or a run's training -> the number of examples in its mark."""
    client = open_tracking(home).client
    found = {
        f"{one.name} {one.version}": one.tags[FORGOTTEN]
        for one in client.search_model_versions()
        if FORGOTTEN in one.tags
    }
    experiments = [one.experiment_id for one in client.search_experiments()]
    found |= {
        run.info.run_id: run.data.tags[FORGOTTEN]
        for run in client.search_runs(experiments)
        if FORGOTTEN in run.data.tags
    }
    return {key: int(said.split()[1]) for key, said in found.items()}


def test_while_a_run_or_a_training_is_at_work_nothing_is_touched(distilled: Distilled, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(distilled.before, home)
    store = Store(home / "store")
    with file_lock(home / "runs" / "abc.lock"), pytest.raises(UsageError, match=r"^Run abc is running; stop it first"):
        forget(home, store, [], distilled.where)
    training = next(one for one in trainings_in(home) if one.spec.config.method.name == "qcrd")
    with training.at_work(), pytest.raises(UsageError, match=rf"^A run works in {training.folder}; stop it"):
        forget(home, store, [], distilled.where)
    assert store.query("SELECT * FROM forgotten").num_rows == 0
    assert training.examples().num_rows


def test_what_learned_is_known_without_its_folder_and_through_the_student_it_began_with(
    distilled: Distilled, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(distilled.before, home)
    store = Store(home / "store")
    chosen = ids(home, distilled.where)
    found = affected_by(home, store, chosen)
    [version] = found.versions
    assert version.version == "qcrd-sums version 1"
    learned = found.versions[version]
    assert learned == found.trainings[version.training]

    # One that learned from none of them itself began with that version's student.
    other = next(one for one in found.folders if one.folder.name != version.training)
    (other.folder / "examples.parquet").unlink()
    began = home.resolve() / "started-from" / "qcrd-sums-1-1790000000000"
    student = other.spec.config.student.model_copy(update={"model": str(began), "new": None})
    config = other.spec.config.model_copy(update={"student": student})
    other.write_spec(other.spec.model_copy(update={"config": config}))
    passed_on = affected_by(home, store, chosen)
    assert passed_on.trainings[other.folder.name] == learned
    assert other.folder.name not in {one.folder.name for one in passed_on.folders}, "its folder quotes none"

    shutil.rmtree(home / "trainings" / version.training)
    assert affected_by(home, store, chosen).versions[version] == learned, "its student's samples say so"
    with rewriting(store):
        prune(store, student_samples(store, now(), ()))
    voted = affected_by(home, store, chosen).versions[version]
    assert voted >= learned, "its votes say so; whether they were for training is not known any more"


def test_it_is_shown_forgotten_marked_and_stays_away(
    distilled: Distilled, qcrd: Qcrd, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, words = distilled.home, distilled.words
    monkeypatch.chdir(distilled.folder)
    choice = ("--where", distilled.where)

    shown = qcrd("forget", *choice, "--dry-run", home=home)
    assert "registered students that learned from them: qcrd-sums version 1" in shown.stdout
    for as_json in ((), ("--json",)):
        refused = qcrd("forget", *choice, *as_json, code=2, home=home)
        assert refused.stdout == ""
        assert re.fullmatch(r"qcrd: Nothing was forgotten: .*\. --yes forgets without asking, .*\n", refused.stderr)
    assert figures(qcrd("forget", *choice, "--dry-run", "--json", home=home))["forgotten"] is False
    assert left(home, words), "so far it was only shown"
    old = {training.folder.name for training in trainings_in(home)}
    trained_on = sum(len(training.learned_from(ids(home, distilled.where))) > 0 for training in trainings_in(home))
    assert trained_on >= 3

    done = qcrd("forget", *choice, "--yes", "--retrain", home=home)
    assert f"Forgotten: {len(words)} examples." in done.stdout
    last = next(
        line for line in done.stderr.splitlines() if line.startswith("What may still hold them: your own files")
    )
    assert "students that are registered (qcrd-sums version 1): weights, and a tokenizer made from the texts" in last
    assert left(home, words) == set()
    tokenizers = places_of({TWICE: TWICE}, home / "mlflow")
    assert all("/models/" in file for file in tokenizers.get(TWICE, [])), "which is what the line says"
    assert f"{sum('zztr' in word or word == TWICE for word in words)} of 60 questions were forgotten" in done.stderr

    # Another student is there, which never saw them, and the first is marked.
    versions = {one["version"]: one["tags"] for one in figures(qcrd("registry", "--json", home=home))}
    assert set(versions) == {"1", "2"}
    assert FORGOTTEN in versions["1"]
    assert FORGOTTEN not in versions["2"]
    assert "forgotten questions" in " ".join(qcrd("registry", home=home).stdout.split()), "in a narrow column"
    new = [training for training in trainings_in(home) if training.folder.name not in old]
    assert new
    assert all(training.examples().num_rows for training in new)
    for name in old:
        gone = Training(home / "trainings" / name)
        with pytest.raises(UsageError, match=rf"^Training {name} learned from questions that were forgotten on 20"):
            gone.examples()
        assert gone.evaluations(), "its figures stay"
    shown = qcrd("show", "rounds", "--training", sorted(old)[0], home=home)
    assert "best round: " in shown.stdout

    # Nothing brings them back.
    told = qcrd("import", "samples.jsonl", "--dataset", "sums.yaml", home=home)
    assert re.search(
        r"^\d of 60 questions were forgotten \(`qcrd forget`\) and are left out\.$", told.stderr, re.MULTILINE
    )
    qcrd("import", "samples.jsonl", "--dataset", "sums.yaml", "--split", "other", home=home)
    assert left(home, words) == set()
    rows = figures(qcrd("sql", "SELECT * FROM forgotten ORDER BY ALL", "--json", home=home))
    assert len(rows) == len(words)
    assert {row["state"] for row in rows} == {"done"}
    assert all(row["versions"] == ["qcrd-sums version 1"] for row in rows if row["trainings"])
    assert figures(qcrd("store", "check", "--json", home=home))["damaged"] == []
    again = qcrd("forget", "--example", rows[0]["example_id"], "--yes", code=2, home=home)
    assert "all of them were forgotten before: nothing to forget" in again.stderr
    answer = figures(qcrd("predict", "Ann has 3 nuts and gets 4. How many?", "--json", home=home))
    assert set(answer[0]) >= {"answer", "rationale"}


def ids(home: Path, where: str) -> list[str]:
    found: list[str] = (
        Store(home / "store").query(f"SELECT example_id FROM examples WHERE {where}")["example_id"].to_pylist()
    )
    return found
