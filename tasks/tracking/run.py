"""What a training reports to MLflow while it runs (through `tasks.tracking.client`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from models.folders import MODEL
from storage.ids import content_id
from tasks.errors import TrackingFailed
from tasks.questions.sets import Part, QuestionSet
from tasks.tracking.client import AboutTraining, LoggedRound, QuestionsUsed, Tracking
from tasks.training.agreement import agreements
from tasks.training.folder import Training
from tasks.training.outcomes import Decided, Evaluation, Prepared, QualityUpdated, RoundTrained


class TrainingRun:
    """A training's run in MLflow.

    Args:
        tracking: the MLflow to report to.
        prepared: the training.
        run_id: the run's id in the store's `runs` table.
        others: further tags (Prefect's ids and addresses).
    """

    def __init__(self, tracking: Tracking, prepared: Prepared, run_id: str, others: dict[str, str]) -> None:
        self.tracking, self.training, self.spec = tracking, Training(prepared.folder), prepared.spec
        about = AboutTraining(
            training_id=prepared.training_id,
            dataset=self.spec.train.dataset,
            method=self.spec.config.method.name,
            vote_id=self.spec.rule.vote_id,
            run_id=run_id,
            others={"store": self.spec.store, **others},
        )
        inputs = [self._used("train", prepared.questions)]
        self.run = tracking.training(about, self.spec.config.model_dump(mode="json"), inputs)

    def round(self, t: int, quality: QualityUpdated, result: Evaluation) -> LoggedRound:
        """Reports a finished round; reporting it again changes nothing."""
        known = self.tracking.logged_round(self.run, t)
        if known is not None and self._is_told(known):
            return known
        self.tracking.losses(self.tracking.round(self.run, t), self.training.steps(t))
        figures = self._figures(result) | {
            name: value
            for name, value in quality.model_dump(exclude={"version", "steps", "too_long", "seconds"}).items()
            if value is not None
        }
        figures |= self._agreement(t)
        trained = self.training.outcome(RoundTrained, t)
        checkpoint = self.training.round(t) / trained.checkpoint / MODEL if trained else None
        return self.tracking.finish_round(self.run, t, figures, checkpoint, self._used("validation", result.questions))

    def finish(self, t: int, test: Evaluation | None) -> LoggedRound:
        """Reports the end: which round is the result, and its test figures."""
        best = self.tracking.logged_round(self.run, t)
        if best is None:
            raise TrackingFailed(f"MLflow at {self.tracking.backend.shown} has lost round {t} of {self.spec.name}.")
        used = self._used("test", test.questions) if test else None
        self.tracking.finish(self.run, self._figures(test) if test else None, best, questions=used)
        return best

    @property
    def url(self) -> str | None:
        """The URL of the run's page; None if there is no MLflow server."""
        return self.tracking.address(self.run)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Logs the machine's load during the block; marks a training that does not finish as failed or killed."""
        with self.tracking.system_metrics(self.run):
            try:
                yield
            except BaseException as error:
                killed = not isinstance(error, Exception)
                self.tracking.finish(self.run, outcome="KILLED" if killed else "FAILED")
                raise

    def _is_told(self, known: LoggedRound) -> bool:
        return bool(self.tracking.client.get_run(known.run_id).info.status == "FINISHED")

    def _figures(self, result: Evaluation) -> dict[str, float]:
        values: dict[str, Any] = result.model_dump(exclude={"t", "part", "judged_by"})
        found = {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}
        if result.decided:  # "accuracy" is what the student reaches when it is served
            found |= {"correct": result.given_correct, "accuracy": result.given_accuracy}
            found |= {
                "bare_accuracy": result.accuracy,
                "calibration_error": result.decided[0].calibration_error,
                **_abstaining(result.decided[0]),
                **{f"accuracy_{one.samples}_samples": one.accuracy for one in result.decided},
            }
        return found

    def _agreement(self, t: int) -> dict[str, float]:
        """Agreement with the teacher on the validation questions with a majority answer, and accuracy on those of them
        whose right answer is known."""
        found: dict[str, float] = {}
        for one in agreements(self.training):
            if one.t == t:
                found = {"agreement": one.share}
                if one.accuracy is not None:
                    found |= {"agreement_accuracy": one.accuracy, "agreement_questions": len(one.right)}
        return found

    def _used(self, part: Part, rows: int) -> QuestionsUsed:
        sets: dict[Part, QuestionSet | None] = {
            "train": self.spec.train, "validation": self.spec.validation, "test": self.spec.test,
        }  # fmt: skip
        chosen = sets[part]
        digest = (
            self.spec.data_digest
            if part == "train"
            else content_id("questions", sorted(chosen.ids(self.spec.open_store())) if chosen else [])
        )
        name = f"{self.spec.train.dataset}/{part}"
        return QuestionsUsed(name, digest, self.spec.store, "training" if part == "train" else part, rows)


def _abstaining(decided: Decided) -> dict[str, float]:
    """Figures of a student that may abstain; those that do not exist are left out."""
    found = {"aurc": decided.aurc}
    if one := decided.abstention:
        found |= {
            "coverage": one.coverage,
            "coverage_low": one.coverage_interval[0],
            "coverage_high": one.coverage_interval[1],
            "risk": one.risk,
            "risk_low": one.risk_interval[0],
            "risk_high": one.risk_interval[1],
        }
    return {name: value for name, value in found.items() if value is not None}
