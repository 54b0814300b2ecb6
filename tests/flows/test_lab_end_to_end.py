"""All of it on real parts: train the lab's teacher, serve it with vLLM, sample, vote, distil, register, answer."""

from pathlib import Path
from typing import Any

import pytest

from storage.store import Store
from tests.conftest import Qcrd, figures

pytestmark = pytest.mark.slow

QUESTIONS, N, ROUNDS = 300, 5, 2
SMALL = [
    f"dataset.limit={QUESTIONS}", "dataset.validation_limit=60", "dataset.test_limit=80", f"rounds.rounds={ROUNDS}",
    "rounds.epochs_per_round=1", "discriminator.pretrain_steps=10", "discriminator.update_every=1",
    "discriminator.update_steps=4", "negatives.lag=1",
]  # fmt: skip


def distil(qcrd: Qcrd, *more: str) -> dict[str, Any]:
    settings = [part for setting in (*SMALL, *more) for part in ("--set", setting)]
    result: dict[str, Any] = figures(qcrd("distill", "lab", *settings, "--json"))
    return result


def rows(home: Path, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Store(home / "store").query(sql).to_pylist()
    return found


def test_from_questions_to_a_registered_student(home: Path, qcrd: Qcrd) -> None:
    result = distil(qcrd)

    # the teacher: usefully wrong, sampled through vLLM, and nothing downstream knows that it is the lab's
    assert result["sampled"]["sampled"] == QUESTIONS * N
    assert list((home / "logs").glob("vllm-*.log"))
    votes = result["votes"]
    assert (votes["examples"], votes["samples"]) == (QUESTIONS, QUESTIONS * N)
    assert 0.60 <= votes["single_accuracy"] <= 0.85
    assert votes["majority_accuracy"] >= votes["single_accuracy"] + 0.05
    sql = (
        "SELECT DISTINCT source, model, model_revision IS NOT NULL AS pinned, completion_tokens > 0 AS counted "
        "FROM rationales WHERE source <> 'student'"
    )
    assert figures(qcrd("sql", sql, "--json")) == [
        {"source": "teacher", "model": "lab-teacher", "pinned": True, "counted": True}
    ]
    sampled = qcrd("sample", "--dataset", "lab", "--limit", QUESTIONS, "--max-tokens", 128, "--json")
    assert figures(sampled)["sampled"] == 0

    # the rounds: negatives, scores and predictions are rows
    qcrd_result, dss = result["methods"]
    assert (qcrd_result["method"], dss["method"]) == ("qcrd", "dss")
    assert [one["t"] for one in qcrd_result["rounds"]] == [one["t"] for one in dss["rounds"]] == [0, 1]
    name = qcrd_result["student"]
    own = rows(
        home,
        "SELECT round, count(*) AS n, min(temperature) AS temperature FROM rationales "
        f"WHERE source = 'student' AND model = '{name}' GROUP BY round ORDER BY round",
    )
    # round 0 from the student before training; with lag 1 round 1's come from round 0
    assert own == [{"round": round_, "n": QUESTIONS, "temperature": 1.5} for round_ in (-1, 0)]
    scored = rows(
        home, "SELECT round, min(score) > 0 AND max(score) < 1 AS inside FROM scores GROUP BY ALL ORDER BY ALL"
    )
    assert scored == [{"round": 0, "inside": True}, {"round": 1, "inside": True}]
    predicted = rows(home, "SELECT model, split, count(*) AS n FROM predictions GROUP BY ALL")
    for one in (qcrd_result, dss):
        for t in range(ROUNDS):
            assert {"model": f"{one['student']}@{t}", "split": "validation", "n": 60} in predicted
        # the test questions are read once, by the best round's student
        tested = [row for row in predicted if row["split"] == "test" and row["model"].startswith(one["student"])]
        assert tested == [{"model": f"{one['student']}@{one['best']}", "split": "test", "n": 80}]
        assert one["test"]["questions"] == 80
    assert figures(qcrd("store", "check", "--json"))["damaged"] == []

    # the registry
    assert result["registered"]["name"] == "qcrd-lab"
    assert result["registered"]["version"] == "1"
    assert result["registered"]["champion"]
    runs = rows(home, "SELECT state, mlflow_run_id FROM runs")
    assert runs == [{"state": "finished", "mlflow_run_id": qcrd_result["mlflow_run"]}]

    # once more: everything is found, nothing is done again, no second version
    again = distil(qcrd)
    assert again["sampled"]["sampled"] == 0
    assert again["methods"] == result["methods"]
    assert again["registered"]["version"] == "1"

    # another method changes only what it has to, and the gate compares it with the champion
    finetuned = distil(qcrd, "method.name=finetune", "compare=[]")
    assert finetuned["methods"][0]["rounds"][0]["explanation_accuracy"] is None
    assert finetuned["registered"]["version"] == "2"
    assert "80 test questions" in finetuned["registered"]["reason"]

    # the champion at work
    answer = figures(
        qcrd("predict", "Ann has 3 apples. She finds 4 more. How many apples does Ann have now?", "--json")
    )
    assert set(answer[0]) == {"question", "answer", "rationale", "quality", "confidence", "abstained"}
    assert 0 <= answer[0]["quality"] <= 1
    evaluated = figures(qcrd("evaluate", "--dataset", "lab", "--limit", 40, "--json"))
    assert evaluated["questions"] == 40
    assert evaluated["student"] == "qcrd-lab/1"
    shown = qcrd("show", "rounds", "--training", qcrd_result["training_id"]).stdout
    assert f"{name} (best round: {qcrd_result['best']};" in shown

    store = Store(home / "store")
    assert not list((home / "trainings").rglob("*.partial-*"))
    assert store.query("SELECT count(*) AS n FROM runs")["n"].to_pylist() == [3]
