"""The best round, the end, and which checkpoints stay: never too few."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.folders import MODEL, OPTIMIZER, STATE
from models.methods import MethodConfig
from storage.errors import UsageError
from storage.votes import VoteRule
from tasks.questions.sets import QuestionSet
from tasks.training.folder import Training
from tasks.training.outcomes import Evaluation, RoundTrained
from tasks.training.rounds import best_round, is_over, kept_rounds, prune
from tasks.training.spec import INITIAL, NegativesConfig, RoundsConfig, TrainingSpec
from tests.tasks.training.world import tiny_training

LAGS = st.integers(1, 8) | st.sampled_from(["fixed", "none"])


def spec(lag: object, keep: int, negatives: bool = True) -> TrainingSpec:
    config = tiny_training(negatives={"lag": lag}, rounds={"keep": keep, "rounds": 40}, method={"negatives": negatives})
    questions = QuestionSet(dataset="lab", split="train")
    return TrainingSpec(
        training_id="t", dataset="lab", store="s", rule=VoteRule(dataset="lab"), train=questions, validation=questions,
        test=None, data_digest="d", config=config,
    )  # fmt: skip


def result(t: int, accuracy: float) -> Evaluation:
    return Evaluation(t=t, part="validation", questions=8, answered=8, correct=round(8 * accuracy), accuracy=accuracy)


def results(*accuracies: float) -> list[Evaluation]:
    return [result(t, accuracy) for t, accuracy in enumerate(accuracies)]


# ---- the rule ----


@given(LAGS, st.integers(1, 4), st.lists(st.integers(0, 8), min_size=2, max_size=25), st.booleans())
def test_what_a_later_round_needs_is_never_pruned(
    lag: int | str, keep: int, eighths: list[int], negatives: bool
) -> None:
    """Round after round, as `distill` does it: what is pruned once never comes back."""
    made = spec(lag, keep, negatives)
    there: set[int] = set()
    for done in range(len(eighths)):
        before = made.config.negatives.round_before(done)
        if before is not None and before != INITIAL and negatives:
            assert before in there, f"round {done} takes its negatives from {before}"
        assert done == 0 or done - 1 in there, "a round goes on from the one before"
        there.add(done)
        best = best_round(results(*(number / 8 for number in eighths[: done + 1])))
        kept = kept_rounds(made, done, best)
        assert kept <= set(range(done + 1))
        there &= kept
        assert best in there
        assert set(range(max(0, done + 1 - keep), done + 1)) <= there
        limit = keep + 1 + (lag if isinstance(lag, int) and negatives else 0)
        assert len(there) <= limit, "and not many more"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_best_round_is_the_earliest_of_the_highest(accuracies: list[float]) -> None:
    best = best_round(results(*accuracies))
    assert accuracies[best] == max(accuracies)
    assert accuracies.index(max(accuracies)) == best


def test_without_a_round_there_is_no_best_one() -> None:
    with pytest.raises(UsageError, match="No round is finished yet; run the same `qcrd distill` again"):
        best_round([])


@pytest.mark.parametrize(
    ("accuracies", "patience", "over"),
    [
        ((), 2, False),
        ((0.1,), 1, False),
        ((0.1, 0.1), 1, True),  # no better is not better
        ((0.1, 0.2), 1, False),
        ((0.5, 0.2, 0.3), 2, True),
        ((0.5, 0.2, 0.6, 0.1), 2, False),
        ((0.5, 0.2, 0.3), 3, False),
        ((0.5, 0.2, 0.3, 0.1), None, False),
        ((0.1, 0.2, 0.3, 0.4, 0.5), None, True),
    ],
)
def test_the_end(accuracies: tuple[float, ...], patience: int | None, over: bool) -> None:
    assert is_over(results(*accuracies), RoundsConfig(rounds=5, patience=patience)) is over


# ---- the folders ----


def finish(folder: Path, t: int, accuracy: float, interrupted: bool = False) -> None:
    """What a finished round leaves behind, weights as empty files."""
    steps = [f"step-{number:08d}" for number in (2, 5, 9)]
    for step in steps:
        model = Training(folder).round(t) / step / MODEL
        model.mkdir(parents=True)
        (model / "model.safetensors").touch()
        for name in (OPTIMIZER, STATE):
            (model.parent / name).touch()
    if interrupted:
        return
    trained = RoundTrained(t=t, checkpoint=steps[-1], steps=9, examples=3, means={}, seconds=1.0)
    Training(folder).write_outcome(trained, t)
    (Training(folder).round(t) / "validation.json").write_text(result(t, accuracy).model_dump_json())
    (Training(folder).round(t) / "steps.jsonl").touch()


def models_in(folder: Path) -> list[str]:
    return sorted(str(path.parent.relative_to(folder)) for path in folder.rglob(MODEL))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (Training(tmp_path).round(INITIAL) / MODEL).mkdir(parents=True)
    return tmp_path


def test_prune_removes_weights_and_optimizer_states_alone(folder: Path) -> None:
    Training(folder).write_spec(spec(lag=2, keep=1))
    assert prune(Training(folder)) == []
    for t, accuracy in enumerate((0.5, 0.9, 0.1, 0.2, 0.3)):
        finish(folder, t, accuracy)
        prune(Training(folder))
    finish(folder, 5, 0.0, interrupted=True)  # the round that is being trained
    assert prune(Training(folder)) == []
    last = "step-00000009"
    assert models_in(folder) == [
        "initial",
        f"round-001/{last}",  # the best
        f"round-003/{last}",  # round 5's past
        f"round-004/{last}",  # round 6's, and the newest
        *(f"round-005/step-{number:08d}" for number in (2, 5, 9)),
    ]
    states = sorted(str(path.relative_to(folder)) for path in folder.rglob(STATE) if "round-005" not in str(path))
    assert states == [f"round-004/{last}/{STATE}"], "only the newest round can be gone on from"
    for t in range(5):
        assert (Training(folder).round(t) / "trained.json").is_file()
        assert (Training(folder).round(t) / "steps.jsonl").is_file()
    assert [one.accuracy for one in Training(folder).evaluations()] == [0.5, 0.9, 0.1, 0.2, 0.3]
    assert prune(Training(folder)) == [], "again is nothing"


def test_a_checkpoint_is_found_or_it_says_why_not(folder: Path) -> None:
    Training(folder).write_spec(spec(lag="none", keep=1))
    finish(folder, 0, 0.2)
    finish(folder, 1, 0.4)
    finish(folder, 2, 0.3)
    assert Training(folder).checkpoint(INITIAL) == Training(folder).round(INITIAL)
    assert Training(folder).checkpoint(0).name == "step-00000009"
    prune(Training(folder))
    assert Training(folder).checkpoint(1).is_dir(), "the best"
    assert Training(folder).checkpoint(2).is_dir(), "the newest"
    with pytest.raises(UsageError, match=r"checkpoint of round 0 .* was pruned: .* Raise rounds\.keep"):
        Training(folder).checkpoint(0)
    with pytest.raises(UsageError, match=r"Round 3 .* is not trained yet; run the same `qcrd distill` again to go on"):
        Training(folder).checkpoint(3)


def test_evaluations_end_at_the_first_round_without_one(folder: Path) -> None:
    for t in range(3):
        finish(folder, t, 0.5)
    (Training(folder).round(1) / "validation.json").unlink()
    assert [one.t for one in Training(folder).evaluations()] == [0]
    assert Training(folder / "nowhere").evaluations() == []


def test_fixed_negatives_need_no_round() -> None:
    assert kept_rounds(spec("fixed", 1), 9, 3) == {3, 9}
    assert kept_rounds(spec(5, 1), 9, 3) == {3, 5, 6, 7, 8, 9}
    assert kept_rounds(spec(5, 1, negatives=False), 9, 3) == {3, 9}
    assert MethodConfig().uses_negatives
    assert NegativesConfig().lag == 5
