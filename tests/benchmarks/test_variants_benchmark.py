"""The benchmark of variants: which questions its arms have, how long they train, and how outcomes are told."""

import argparse
from pathlib import Path

import pytest

from benchmarks import curves
from benchmarks.variants import ARMS, Arm, show
from storage.datasets.registry import get_dataset


def options(home: Path, equal: str) -> argparse.Namespace:
    return argparse.Namespace(home=home, few=60, equal=equal, visits=960, set=["dataset.test_limit=400"])


def test_arms_have_the_same_few_and_about_the_same_steps(tmp_path: Path) -> None:
    pool = list(get_dataset("lab").load("train", None, 120))
    arms = {name: Arm(0, name, options(tmp_path, "steps")) for name in ARMS}
    own = {name: arm.own(pool) for name, arm in arms.items()}
    assert all(questions[:60] == pool[:60] for questions in own.values())
    counts = {name: len(questions) for name, questions in own.items()}
    assert (counts["few"], counts["rephrased"], counts["changed"], counts["more"]) == (60, 60, 60, 120)
    assert 60 < counts["apart"] < 120, "some are like test questions"
    assert arms["few"].epochs(own["few"]) == 8
    assert arms["more"].epochs(own["more"]) == 4
    for name in ("rephrased", "changed", "apart"):
        assert arms[name].epochs(own[name]) in (4, 5), "of about 90 to 120 questions"
        assert Arm(0, name, options(tmp_path, "epochs")).epochs(own[name]) == 8


def test_outcomes_are_paired_by_seed(tmp_path: Path) -> None:
    def outcome(right: str) -> curves.Outcome:
        return {"right": right, "bare": 0.5, "explanations": None}

    curves.write(tmp_path / "one.json", outcome("1100"))
    assert curves.read(tmp_path / "one.json") == outcome("1100")
    assert curves.read(tmp_path / "two.json") is None
    first, other = {0: outcome("1110"), 1: outcome("1111")}, {1: outcome("0101"), 2: outcome("0000")}
    assert curves.minus(first, other, "few").startswith("; minus few +50.0 (")
    assert curves.minus(first, {2: outcome("0000")}, "few") == ""
    assert curves.accuracies(first).startswith(" 87.5 (")


def test_the_table_has_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = options(tmp_path, "steps")
    given.first_seed, given.seeds = 0, 2
    show(given)
    assert capsys.readouterr().out == ""
    line = {"right": "1100", "bare": 0.5, "explanations": 0.25, "chosen": 0.5, "samples": 120, "questions": 55,
            "steps": 30, "seconds": 9.0, "majorities": 0.9, "refused": {"unreadable": 3}}  # fmt: skip
    for name in ("few", "changed"):
        arm = Arm(1, name, given)
        arm.folder.mkdir(parents=True)
        curves.write(arm.file, line)
    show(given)
    printed = capsys.readouterr().out
    assert "changed" in printed
    assert "minus few +0.0" in printed
    assert "3 refused: unreadable" in printed
    assert "90.0 % of majorities right; 55 questions trained on in 30 steps" in printed
