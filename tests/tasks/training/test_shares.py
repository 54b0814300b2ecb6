"""Sampling, scoring and asking in several processes: the same rows and figures as in one."""

from pathlib import Path
from typing import Any

import pytest

from models.errors import TrainingFailed
from tasks.training.calibration import calibrate
from tasks.training.evaluation import evaluate_round
from tasks.training.folder import Training
from tasks.training.negatives import sample_negatives
from tasks.training.outcomes import Prepared
from tasks.training.quality import update_quality
from tasks.training.shares import Share, other_shares
from tasks.training.spec import TrainingConfig
from tasks.training.student import train_round
from tests.tasks.training.world import World, small_world, tiny_training

ROWS = (
    "SELECT * EXCLUDE (created_at) FROM rationales WHERE source = 'student' ORDER BY sample_id",
    "SELECT * EXCLUDE (created_at) FROM scores ORDER BY sample_id",
    "SELECT * EXCLUDE (created_at) FROM predictions ORDER BY example_id, split",
)


def use(prepared: Prepared, processes: int) -> None:
    """Goes on with so many processes, as the same command with another `rounds.processes` does."""
    training = Training(prepared.folder)
    rounds = training.spec.config.rounds.model_copy(update={"processes": processes})
    config = training.spec.config.model_copy(update={"rounds": rounds})
    training.write_spec(training.spec.model_copy(update={"config": config}))


def play(world: World, processes: int, config: TrainingConfig) -> list[Any]:
    """A round, of which only the student's training takes one process; its figures and rows."""
    prepared = world.prepare(config)
    use(prepared, processes)
    told: list[Any] = [sample_negatives(prepared.folder, 0), update_quality(prepared.folder, 0)]
    use(prepared, 1)
    train_round(prepared.folder, 0)
    use(prepared, processes)
    told.append(evaluate_round(prepared.folder, 0, "validation"))
    told.append(calibrate(prepared.folder, 0))
    told.append(evaluate_round(prepared.folder, 0, "test"))
    figures = [one.model_dump(exclude={"seconds"}) for one in told]
    return figures + [world.store.query(sql).to_pylist() for sql in ROWS]


def assert_alike(one: Any, other: Any) -> None:
    """Equal, but for the rounding of floats."""
    if isinstance(one, dict):
        assert_alike(sorted(one), sorted(other))
        assert_alike([one[key] for key in sorted(one)], [other[key] for key in sorted(one)])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for own, others in zip(one, other, strict=True):
            assert_alike(own, others)
    elif isinstance(one, float):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    else:
        assert one == other


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("kind", ["margin", "own samples and a judge"])
def test_several_processes_make_what_one_makes(processes: int, kind: str, tmp_path: Path) -> None:
    config = tiny_training(answering={"samples": (0, 2)})
    if kind != "margin":
        judged = {"contrast": "none", "judge_weight": 0.5, "quality_by": "judge"}
        config = tiny_training(method=judged, own={"samples": 2})
    (tmp_path / "one").mkdir()
    (tmp_path / "several").mkdir()
    alone = play(small_world(tmp_path / "one"), 1, config)
    together = play(small_world(tmp_path / "several"), processes, config)
    assert_alike(alone, together)  # other batches, so other roundings
    assert alone[0]["sampled"] >= 12
    assert alone[-1], "it was asked"


def test_a_process_that_fails_ends_the_step_in_one_line(tmp_path: Path) -> None:
    training = Training(small_world(tmp_path).prepare(tiny_training(rounds={"processes": 2})).folder)
    with (
        pytest.raises(TrainingFailed, match=r"^One of 2 processes failed in the answers of round 0 \(exit code 1\): "),
        other_shares(training, 0, "answers", tmp_path / "nowhere") as share,
    ):
        assert share == Share(0, 2)


def test_shares_have_everything_once() -> None:
    for of in (1, 2, 5):
        assert [sum(Share(number, of).has(place) for number in range(of)) for place in range(11)] == [1] * 11
