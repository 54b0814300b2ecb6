"""The result of a distillation: small, and the same for the command line, Prefect and tests."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from storage.vote_summary import VoteSummary
from tasks.running.workspace import Workspace
from tasks.steps.teacher import Sampled
from tasks.tracking.client import LoggedRound
from tasks.tracking.gate import Verdict, exact_mcnemar, judge, wilson_interval
from tasks.tracking.registry import Registered
from tasks.training.folder import Training
from tasks.training.outcomes import Evaluation, Prepared
from tasks.training.spec import Parts
from tasks.training.summary import round_rows


class MethodResult(BaseModel):
    """One trained method.

    Attributes:
        method: its name.
        training_id: content id of the training.
        student: its name in the store's `model` columns; "@round" follows there.
        folder: the training's folder.
        parameters: how many the student has.
        rounds: validation results of all rounds.
        best: the round with the highest validation accuracy.
        test: test result of the best round's student; None if there are no test questions.
        test_interval: 95 % Wilson interval of the test accuracy, of the answers as they are given when served.
        seconds: how long training, sampling and evaluating took over all rounds, as noted when each was done.
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
        """The best round in MLflow."""
        return LoggedRound(self.mlflow_run, self.best, self.mlflow_round, self.mlflow_model)


class Compared(BaseModel):
    """The method compared with another one on the same test questions.

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
        run_id: the run's id in the store's `runs` table.
        sampled: the teacher's part.
        votes: the figures of the vote.
        methods: the method, then those it was compared with.
        compared: the method compared with each of those.
        registered: None if nothing was to be registered.
    """

    run_id: str
    sampled: Sampled
    votes: dict[str, Any]
    methods: list[MethodResult]
    compared: list[Compared]
    registered: RegisteredResult | None

    def figures(self) -> dict[str, float | None]:
        """The figures to watch over time (`tasks.watching.figures`); None for those that do not exist."""
        method, votes, sampled = self.methods[0], self.votes, self.sampled
        best = method.rounds[method.best]
        abstention = method.test.abstention if method.test else None
        return {
            "agreement": votes.get("mean_share"),
            "entropy": votes.get("mean_entropy"),
            "unparsed": votes["unparsed"] / votes["samples"] if votes.get("samples") else None,
            "majority_accuracy": votes.get("majority_accuracy"),
            "sampled": sampled.sampled,
            "sampled_prompt_tokens": sampled.prompt_tokens,
            "sampled_completion_tokens": sampled.completion_tokens,
            "sampling_cost": sampled.cost,
            "validation_accuracy": best.given_accuracy,
            "test_accuracy": method.test.given_accuracy if method.test else None,
            "test_coverage": abstention.coverage if abstention else None,
            "test_risk": abstention.risk if abstention else None,
            "test_explanation_accuracy": method.test.explanation_accuracy if method.test else None,
            "training_seconds": method.seconds,
        }


def method_result(
    prepared: Prepared, best: int, test: Evaluation | None, logged: LoggedRound, url: str | None
) -> MethodResult:
    """The result of a training that is over.

    Args:
        prepared: the training.
        best: its best round.
        test: the evaluation of that round's student on the test questions.
        logged: the round in MLflow.
        url: the URL of the training's page in MLflow.
    """
    training = Training(prepared.folder)
    return MethodResult(
        method=prepared.spec.config.method.name,
        training_id=prepared.training_id,
        student=prepared.name,
        folder=prepared.folder,
        parameters=prepared.parameters,
        rounds=training.evaluations(),
        best=best,
        test=test,
        test_interval=wilson_interval(test.given_correct, test.questions) if test else None,
        seconds=sum(row["seconds"] for row in round_rows(training)),
        mlflow_run=logged.training,
        mlflow_round=logged.run_id,
        mlflow_model=logged.model_id,
        mlflow_url=url,
    )


def registered_result(challenger: Registered, verdict: Verdict) -> RegisteredResult:
    """The registered student, and what the gate said of it."""
    return RegisteredResult(
        name=challenger.name, version=challenger.version, champion=verdict.promoted, reason=verdict.reason
    )


def distill_result(
    workspace: Workspace,
    parts: Parts,
    sampled: Sampled,
    votes: VoteSummary,
    methods: list[MethodResult],
    registered: RegisteredResult | None,
) -> DistillResult:
    """The result of a run; the first method is compared with each of the others."""
    store, test = workspace.open_store(), parts.test
    answers = [test.rights(store, f"{one.student}@{one.best}") for one in methods] if test else []
    others = zip(methods[1:], answers[1:], strict=False)  # no answers without test questions
    return DistillResult(
        run_id=workspace.run_id,
        sampled=sampled,
        votes={name: value for name, value in vars(votes).items() if value is not None},
        methods=methods,
        compared=[compared(answers[0], other, one.method) for one, other in others],
        registered=registered,
    )


def compared(first: dict[str, bool], other: dict[str, bool], method: str) -> Compared:
    """Compares the first method's answers with another's by an exact McNemar test (`tasks.tracking.gate`)."""
    verdict = judge(first, other)
    return Compared(
        method=method,
        difference=verdict.difference or 0.0,
        low=verdict.low or 0.0,
        high=verdict.high or 0.0,
        p_value=exact_mcnemar(verdict.only_challenger, verdict.only_champion),
    )
