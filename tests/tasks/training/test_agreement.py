"""Agreement with the teacher and the truth, round by round, from stored predictions; who is told of it."""

from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from flows.report.proxy import write_proxy
from storage.audited import audited_answers
from storage.errors import NothingToDo
from storage.votes import VoteRule
from tasks.comparing.curves import round_points
from tasks.questions.sets import DatasetConfig
from tasks.running.workspace import Workspace
from tasks.steps.votes import count_votes
from tasks.tracking.backend import Backend
from tasks.tracking.client import Tracking
from tasks.tracking.run import TrainingRun
from tasks.training.agreement import agreements
from tasks.training.folder import Training
from tasks.training.outcomes import QualityUpdated
from tasks.training.summary import round_rows
from tasks.watching.audit import Judgement, of_vote, record, sampled
from tasks.watching.proxy import alarm
from tests.tasks.training.hacked import COPIED, RIGHT, WRONG, hacked
from tests.tasks.training.world import LAB, small_world

ALL = RIGHT + WRONG


def test_agreement_and_truth_by_round(tmp_path: Path) -> None:
    _, prepared, asked = hacked(tmp_path)
    training = Training(prepared.folder)
    found = agreements(training)
    assert [one.t for one in found] == [0, 1, 2, 3]
    assert all(one.agrees.keys() == one.right.keys() == set(asked) for one in found), "only what the teacher answered"
    assert [one.share for one in found] == [(RIGHT + copied) / ALL for copied in COPIED]
    assert [one.accuracy for one in found] == [1 - copied / ALL for copied in COPIED]
    assert [alarm(found[: t + 1]) is not None for t in range(4)] == [False, False, False, True]
    assert [row["teacher"] for row in round_rows(training)] == [one.share for one in found]
    assert [point.agreement for point in round_points(training)] == [one.share for one in found]


def test_audited_answers_are_the_truth_where_there_are_no_labels(tmp_path: Path) -> None:
    world, prepared, asked = hacked(tmp_path, labelled=False)
    training = Training(prepared.folder)
    assert [one.accuracy for one in agreements(training)] == [None] * 4
    assert alarm(agreements(training)) is None
    items = {item.example_id: item for item in sampled(world.store, "lab", "validation",
                                                       of_vote(world.store, "lab", "validation"), 100)}  # fmt: skip
    for key in asked[:WRONG]:
        record(world.store, LAB, "validation", items[key], Judgement("wrong", "2"))
    record(world.store, LAB, "validation", items[asked[WRONG]], Judgement("right"))
    record(world.store, LAB, "validation", items[asked[WRONG + 1]], Judgement("wrong"))
    assert audited_answers(world.store, {"dataset": "lab", "split": "validation"}) == {
        **dict.fromkeys(asked[:WRONG], "2"), asked[WRONG]: items[asked[WRONG]].answer,
    }  # fmt: skip
    assert [len(one.right) for one in agreements(training)] == [WRONG + 1] * 4
    assert alarm(agreements(training)) is not None
    record(world.store, LAB, "validation", items[asked[0]], Judgement("right"), auditor="Ann")
    assert asked[0] not in agreements(training)[0].right, "two people differ"


def test_a_training_whose_teacher_was_not_asked_has_none(tmp_path: Path) -> None:
    prepared = small_world(tmp_path).prepare()
    assert agreements(Training(prepared.folder)) == []


def test_a_run_votes_on_validation_questions_that_the_teacher_has_answered(tmp_path: Path) -> None:
    world, _, asked = hacked(tmp_path)
    workspace = Workspace(home=tmp_path, store=world.store.files.root, run_id="run")
    rule, another = VoteRule(dataset="lab", n=1), VoteRule(dataset="lab", teachers=("teacher",))
    world.sample(world.ask("One?", "1", "other"), ("So.", "1"), split="other", model="another")
    with disable_run_logger():
        summary = count_votes.fn(workspace, rule, DatasetConfig(name="lab"))
        count_votes.fn(workspace, another, DatasetConfig(name="lab", validation_split="other"))
    assert summary.examples == 12, "the training questions; its figures are theirs alone"
    votes = world.store.query("SELECT vote_id, split, count(*) AS n FROM votes GROUP BY ALL").to_pylist()
    found = {(row["vote_id"], row["split"]): row["n"] for row in votes}
    assert found[rule.vote_id, "validation"] == len(asked)
    assert (another.vote_id, "other") not in found


def test_a_page_shows_both_and_says_when_it_rings(tmp_path: Path) -> None:
    _, prepared, _ = hacked(tmp_path / "world")
    page = tmp_path / "page.html"
    assert len(write_proxy(Training(prepared.folder), page)) == 4
    text = page.read_text()
    assert text.count("<polyline") == 2
    assert "Round 3: agreement with the teacher rose from 54.2 to 100.0 %" in text
    assert "Agreement is of 24 validation questions" in text
    none = small_world(tmp_path / "none").prepare()
    with pytest.raises(NothingToDo, match="has a teacher's majority answer by vote"):
        write_proxy(Training(none.folder), page)


def test_mlflow_has_agreement_beside_accuracy(
    tmp_path: Path, mlflow_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    _, prepared, _ = hacked(tmp_path)
    run = TrainingRun(Tracking(Backend(tmp_path)), prepared, "run", {})
    for t, result in enumerate(Training(prepared.folder).evaluations()):
        run.round(t, QualityUpdated(version=None), result)
    history = run.tracking.client.get_metric_history
    told = {
        name: [metric.value for metric in sorted(history(run.run, f"validation/{name}"), key=lambda one: one.step)]
        for name in ("agreement", "agreement_accuracy", "agreement_questions", "accuracy")
    }
    assert told["agreement"] == [(RIGHT + copied) / ALL for copied in COPIED]
    assert told["agreement_accuracy"] == told["accuracy"] == [1 - copied / ALL for copied in COPIED]
    assert told["agreement_questions"] == [ALL] * 4
