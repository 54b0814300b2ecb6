"""What a distillation came to: small, and the same for the command line, Prefect and tests."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tasks.steps.rounds import Sampled
from tasks.tracking.client import LoggedRound
from tasks.training.outcomes import Evaluation


class MethodResult(BaseModel):
    """One trained method.

    Attributes:
        method: its name.
        training_id: content id of the training.
        student: its name in the store's `model` columns; "@round" follows there.
        folder: of the training.
        parameters: of the student.
        rounds: validation results of all rounds.
        best: the round with the highest validation accuracy.
        test: of the best round's student; None where there are no test questions.
        test_interval: 95 % Wilson interval of the test accuracy.
        seconds: training, sampling and evaluating took, over all rounds, as noted when each was done.
        mlflow_run: the training's run; `mlflow_round` and `mlflow_model` those of the best round.
    """

    method: str
    training_id: str
    student: str
    folder: Path
    parameters: int
    rounds: list[Evaluation]
    best: int
    test: Evaluation | None
    test_interval: tuple[float, float] | None
    seconds: float
    mlflow_run: str
    mlflow_round: str
    mlflow_model: str
    mlflow_url: str | None = None

    def logged_round(self) -> LoggedRound:
        """The best round, as MLflow knows it."""
        return LoggedRound(self.mlflow_run, self.best, self.mlflow_round, self.mlflow_model)


class Compared(BaseModel):
    """The method against another one on the same test questions.

    Attributes:
        method: the other one.
        difference: accuracy of the method minus the other's, with its 95 % interval (Newcombe).
        p_value: of the exact McNemar test.
    """

    method: str
    difference: float
    low: float
    high: float
    p_value: float


class RegisteredResult(BaseModel):
    """The registered student.

    Attributes:
        name, version: in MLflow's registry.
        champion: whether it is the champion now.
        reason: why, or why not.
    """

    name: str
    version: str
    champion: bool
    reason: str


class DistillResult(BaseModel):
    """What `distill` returns.

    Attributes:
        run_id: of the store's `runs` table.
        sampled: the teacher's part.
        votes: the figures of the vote.
        methods: the method, then those it was compared with.
        compared: the method against each of those.
        registered: None where nothing was to be registered.
    """

    run_id: str
    sampled: Sampled
    votes: dict[str, Any]
    methods: list[MethodResult]
    compared: list[Compared]
    registered: RegisteredResult | None

    def figures(self) -> dict[str, float | None]:
        """What is kept to be watched over time (`tasks.watching.figures`); None where there is no such figure."""
        method, votes, sampled = self.methods[0], self.votes, self.sampled
        best = method.rounds[method.best]
        return {
            "agreement": votes.get("mean_share"),
            "entropy": votes.get("mean_entropy"),
            "unparsed": votes["unparsed"] / votes["samples"] if votes.get("samples") else None,
            "majority_accuracy": votes.get("majority_accuracy"),
            "sampled": sampled.sampled,
            "sampled_prompt_tokens": sampled.prompt_tokens,
            "sampled_completion_tokens": sampled.completion_tokens,
            "sampling_cost": sampled.cost,
            "validation_accuracy": best.accuracy,
            "test_accuracy": method.test.accuracy if method.test else None,
            "test_explanation_accuracy": method.test.explanation_accuracy if method.test else None,
            "training_seconds": method.seconds,
        }
