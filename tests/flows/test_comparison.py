"""What is judged in a comparison, and what its result says of it."""

import pytest

from flows.comparison import Trained, comparison, pairs_to_judge
from flows.config.compare import Cell, CompareConfig
from tasks.comparing.answers import Said, Told
from tasks.comparing.preferences import Preferences
from tests.flows.report.made_up import contents

CONFIG = CompareConfig(
    base="lab", variants={"dss": {}, "qcrd": {}, "finetune": {}}, baseline="dss", seeds=3, shares=(0.5, 1.0)
)
AGAINST: dict[str, int | None] = {"dss": None, "qcrd": 4, "finetune": None}


def trained(variant: str, share: float, seed: int, fold: int | None = None, rounds: int | None = None) -> Trained:
    """A training on 10 questions; the first fold has the first half of them."""
    named = f"{variant}/{share}/{seed}/{rounds}"
    mine = range(10) if fold is None else range(5 * fold, 5 * fold + 5)
    rationale = None if variant == "finetune" else f"of {named}"
    said = {f"q{place}": Said("7", None if (seed, place) == (1, 3) else rationale) for place in mine}
    cell = Cell(variant, share, seed, fold, rounds)
    right = {"answers": dict.fromkeys(said, True)}
    return Trained(cell, None, Told(right, said, f"{named}@{fold}"))  # type: ignore[arg-type]


def every(fold: int | None = None) -> list[Trained]:
    kinds: list[tuple[str, int | None]] = [("dss", None), ("qcrd", None), ("finetune", None), ("dss", 4)]
    return [
        trained(variant, share, seed, fold, rounds)
        for variant, rounds in kinds
        for share in CONFIG.shares
        for seed in range(3)
    ]


def test_seeds_take_turns_on_the_largest_share_and_every_question_comes_once() -> None:
    pairs = pairs_to_judge(CONFIG, every(), AGAINST, "qcrd", 100)
    assert len({pair.example_id for pair in pairs}) == len(pairs) == 9
    assert "q3" not in {pair.example_id for pair in pairs}, "one of them has no rationale of it"
    for place, pair in enumerate(pairs):
        assert pair.student == f"qcrd/1.0/{place % 3}/None@None"
        assert pair.other == f"dss/1.0/{place % 3}/4@None", "the baseline that was trained for as long"
    assert pairs_to_judge(CONFIG, every(), AGAINST, "qcrd", 4) == pairs[:4]
    assert pairs_to_judge(CONFIG, every(), AGAINST, "finetune", 100) == []


def test_of_each_question_the_student_of_its_fold_is_judged() -> None:
    pairs = pairs_to_judge(CONFIG, [*every(0), *every(1)], AGAINST, "qcrd", 100)
    assert {pair.example_id: pair.student[-1] for pair in pairs} == {
        f"q{place}": str(place // 5) for place in range(10) if place != 3
    }


UNTOLD = "Whether qcrd's rationales are better than those of dss with 4 rounds cannot be told: they"


@pytest.mark.parametrize(
    ("wins", "losses", "verdict", "said"),
    [
        (30, 5, "better", "qcrd's rationales are preferred to those of dss with 4 rounds: they win 30, tie 9 and lose "
                          "5 (p < 0.001)."),
        (5, 30, "worse", "The rationales of dss with 4 rounds are preferred to those of qcrd, which win 5, tie 9 and "
                         "lose 30 (p < 0.001)."),
        (6, 4, "same", f"{UNTOLD} win 6, tie 9 and lose 4 (p = 0.75)."),
        (0, 0, "same", f"{UNTOLD} win 0, tie 9 and lose 0 (p = 1)."),
    ],
)  # fmt: skip
def test_what_is_said_of_the_judge(wins: int, losses: int, verdict: str, said: str) -> None:
    one = CompareConfig(base="lab", variants={"dss": {}, "qcrd": {}}, baseline="dss")
    result = comparison(one, [], {"qcrd": 4, "dss": None}, {"qcrd": Preferences(wins, 9, losses)})
    [row] = result.judged
    assert (row.verdict, row.sentence) == (verdict, f"Judge: {said}")
    assert 0 <= row.low <= row.share <= row.high <= 1


def test_several_variants_are_adjusted_for() -> None:
    rows = contents().result.judged
    assert [row.adjusted / row.p_value for row in rows] == [pytest.approx(2), 1]
