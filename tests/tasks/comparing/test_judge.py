"""The judge against a real server: both orders, each reply stored once, nothing asked twice or lost on a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from models.errors import TeacherFailed
from storage.datasets.definition import Example
from storage.datasets.registry import get_dataset
from storage.ids import example_id
from storage.schemas import PREDICTIONS
from storage.store import Store, now
from tasks.comparing.judge import Pair, judge_pairs
from tasks.comparing.preferences import Preferences
from tasks.comparing.settings import JudgeSettings
from tasks.questions.stored import store_examples
from tasks.teacher.session import choose_teacher
from tests.tasks.comparing.judge_endpoint import judging, prefers

TEST = {"dataset": "lab", "split": "test"}
ROOT = Path(__file__).resolve().parents[3]


def stored_pairs(root: Path, texts: list[tuple[str, str]]) -> list[Pair]:
    """A store with two students' rationales of a question each."""
    store, lab = Store(root), get_dataset("lab")
    questions = [f"How many is question {place}?" for place in range(len(texts))]
    store_examples(store, lab, "test", [Example(question, (), "7") for question in questions])
    rows, pairs = [], []
    for question, both in zip(questions, texts, strict=True):
        key = example_id("lab", "test", question, ())
        pairs.append(Pair(key, "one@3", "two@5"))
        rows += [
            {"example_id": key, "model": student, **TEST, "answer": "7", "rationale": text, "correct": True,
             "created_at": now()}
            for student, text in zip(("one@3", "two@5"), both, strict=True)
        ]  # fmt: skip
    store.append(PREDICTIONS, pa.Table.from_pylist(rows, PREDICTIONS.schema))
    return pairs


def judged(root: Path, pairs: list[Pair], url: str, **settings: object) -> Preferences:
    judge = JudgeSettings.model_validate({"url": url, "model": "wise", "retries": 0, **settings})
    choice = choose_teacher(judge.as_teacher(), root / "home")
    return judge_pairs(Store(root), TEST, pairs, choice, root / "logs", lambda _: None)


TEXTS = [("good", "bad"), ("good", "bad"), ("bad", "good"), ("bad", "worse"), ("same", " same\n")]


def test_both_orders_are_asked_and_every_reply_is_stored_once(tmp_path: Path) -> None:
    pairs = stored_pairs(tmp_path, TEXTS)
    with judging(prefers("good")) as judge:
        assert judged(tmp_path, pairs, judge.url) == Preferences(wins=2, ties=2, losses=1, same=1)
        assert len(judge.bodies) == 8, "equal texts need no judge"
        assert {(body["temperature"], body["n"], body["model"]) for body in judge.bodies} == {(0.0, 1, "wise")}
        again = judged(tmp_path, pairs, judge.url)
        assert len(judge.bodies) == 8, "a second run asks for nothing"
        assert again == Preferences(wins=2, ties=2, losses=1, same=1)
        # Another pair of students that wrote the same texts costs nothing; more questions cost only themselves.
        more = judged(tmp_path, pairs[:2], judge.url)
        assert (len(judge.bodies), more.wins) == (8, 2)
        judged(tmp_path, pairs, judge.url, max_tokens=16)
        assert len(judge.bodies) == 16, "another way of asking is asked anew"
    rows = Store(tmp_path).query("SELECT * FROM judgements").to_pylist()
    assert len(rows) == len({row["judgement_id"] for row in rows}) == 16
    for row in rows:
        assert row["preferred"] == {"A": "first", "B": "second", "e": "tie"}[row["text"][-1]]
        assert (row["judge"], row["prompt_tokens"], row["completion_tokens"]) == ("wise", 90, 7)
    assert {(row["first"], row["second"]) for row in rows} == {
        pair for one, two in TEXTS[:4] for pair in ((one, two), (two, one))
    }


def test_a_judge_that_prefers_a_place_finds_only_ties(tmp_path: Path) -> None:
    pairs = stored_pairs(tmp_path, TEXTS[:3])
    with judging(lambda *_: "Verdict: A") as judge:
        assert judged(tmp_path, pairs, judge.url) == Preferences(wins=0, ties=3, losses=0)
    with judging(lambda *_: "Hm.") as judge:
        assert judged(tmp_path, pairs, judge.url, max_tokens=9) == Preferences(wins=0, ties=3, losses=0, unread=3)


def test_questions_that_the_judge_refuses_are_counted_and_the_others_go_on(tmp_path: Path) -> None:
    pairs = stored_pairs(tmp_path, [("good", "bad"), ("good but far too long", "bad"), ("bad", "good")])
    with judging(prefers("good"), refuse="far too long") as judge:
        assert judged(tmp_path, pairs, judge.url) == Preferences(wins=1, ties=0, losses=1, refused=1)


def test_a_wrong_model_is_one_line(tmp_path: Path) -> None:
    pairs = stored_pairs(tmp_path, TEXTS[:1])
    with judging(prefers("good")) as judge, pytest.raises(TeacherFailed, match="wise") as error:
        judged(tmp_path, pairs, judge.url, model="wiser")
    assert "\n" not in str(error.value)


QUESTIONS = 40
KILLED = """
import sys
from pathlib import Path
from tests.tasks.comparing.test_judge import judged, Pair
root = Path(sys.argv[1])
pairs = [Pair(*line.split()) for line in (root / "pairs").read_text().splitlines()]
judged(root, pairs, sys.argv[2], in_flight=2)
"""


def test_nothing_is_lost_on_a_kill(tmp_path: Path) -> None:
    pairs = stored_pairs(tmp_path, [("good", f"bad {place}") for place in range(QUESTIONS)])
    lines = [f"{pair.example_id} {pair.student} {pair.other}" for pair in pairs]
    (tmp_path / "pairs").write_text("\n".join(lines), encoding="utf-8")
    with judging(prefers("good"), seconds=0.1) as judge:
        command = [sys.executable, "-c", KILLED, str(tmp_path), judge.url]
        with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
            deadline = time.monotonic() + 60
            while not (parts := list(tmp_path.glob("judgements/**/*.parquet"))):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
        stored = len(Store(tmp_path).query("SELECT * FROM judgements"))
        assert parts
        assert 0 < stored < 2 * QUESTIONS, "it was killed at work"
        asked = len(judge.bodies)
        assert judged(tmp_path, pairs, judge.url).wins == QUESTIONS
        assert len(judge.bodies) - asked == 2 * QUESTIONS - stored, "what was stored is not asked again"
    assert len(Store(tmp_path).query("SELECT DISTINCT judgement_id FROM judgements")) == 2 * QUESTIONS
