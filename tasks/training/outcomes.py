"""The outcomes of a training's steps; `tasks.training.folder` stores them."""

from pathlib import Path

from pydantic import BaseModel

from tasks.questions.sets import Part
from tasks.serving.settings import ABSTAINS_ALWAYS, Decision
from tasks.training.spec import TrainingSpec


class Outcome(BaseModel):
    """The outcome of a step."""


class TooLong(BaseModel):
    """What a student cannot read or write whole; it is left out, never cut.

    Attributes:
        questions: longer than `max_input_tokens`; not trained on.
        rationales, answers: longer than `max_target_tokens`; not trained on, but their questions are.
        examples: ids of the first few.
        longest: tokens of the longest text that was left out.
    """

    questions: int = 0
    rationales: int = 0
    answers: int = 0
    examples: tuple[str, ...] = ()
    longest: int = 0


class Initial(Outcome):
    """The student before training.

    Attributes:
        parameters: how many it has.
        too_long: what is too long for it.
    """

    parameters: int
    too_long: TooLong


class Preparation(Outcome):
    """What a training has to train on.

    Attributes:
        questions: how many it trains on.
        positives, negatives: the teacher's distinct rationales for them.
        without_answer, without_positives, without_negatives: how many of them lack these.
        left_out: questions with neither answer nor rationale.
        refusals: questions on which it learns to abstain (`method.abstain_below`).
        parameters: how many the student has.
        too_long: what is left out because of its length.
    """

    questions: int
    positives: int
    negatives: int
    without_answer: int
    without_positives: int
    without_negatives: int
    left_out: int
    refusals: int = 0
    parameters: int
    too_long: TooLong


class Prepared(Preparation):
    """A training that can begin.

    Attributes:
        folder: the training's folder.
        spec: its specification in this run.
    """

    folder: Path
    spec: TrainingSpec

    @property
    def training_id(self) -> str:
        """Its content id."""
        return self.spec.training_id

    @property
    def name(self) -> str:
        """Its student's name."""
        return self.spec.name


class NegativesSampled(Outcome):
    """The student's own rationales of a round.

    Attributes:
        round_before: the round whose student wrote the negatives; -1 for the student before training; None for none.
        samples: how many negatives there are.
        unfinished: how many of them reached the longest length.
        right: how many of them have the question's answer target as their answer; with `negatives.keep: all` they are
            negatives anyway.
        own_before, own_samples, own_right: the same of the own samples.
        sampled: how many of all this step made; the others were stored.
        seconds: how long this step took.
    """

    round_before: int | None
    samples: int = 0
    sampled: int = 0
    unfinished: int = 0
    right: int = 0
    own_before: int | None = None
    own_samples: int = 0
    own_right: int = 0
    seconds: float = 0.0


class QualityUpdated(Outcome):
    """The discriminator of a round.

    Attributes:
        version: the round in which it last changed.
        steps: optimizer steps of this round's update; 0 if there was none.
        scored: rationales that got a score in this round.
        too_long: rationales without one, because with their question they exceed `max_tokens`.
        positive_score, minority_score, student_score: means over the questions that it was not trained on.
        auc_minority, auc_student: how surely it ranks a positive above a minority sample, or above a student's, on the
            same questions. 0.5 is chance; None if there are no samples to compare.
        seconds: how long it took.
    """

    version: int | None
    steps: int = 0
    scored: int = 0
    too_long: int = 0
    positive_score: float | None = None
    minority_score: float | None = None
    student_score: float | None = None
    auc_minority: float | None = None
    auc_student: float | None = None
    seconds: float = 0.0


class RoundTrained(Outcome):
    """A round whose training is over.

    Attributes:
        t: the round.
        checkpoint: what it ended with, relative to the round's folder.
        steps: optimizer steps of the round.
        examples: how many are trained on in an epoch.
        means: each term of the loss, mean per example over the round.
        seconds: how long the training took; for a resumed round, since the resume.
        left_out: questions, answers and rationales that are too long for the student.
    """

    t: int
    checkpoint: str
    steps: int
    examples: int
    means: dict[str, float]
    seconds: float
    left_out: int = 0


class Promise(BaseModel):
    """What is promised of a student that abstains (`tasks.training.risk_control`).

    Attributes:
        risk: the largest share of its answers that is wrong.
        certainty: probability with which that holds.
        abstain_below: the least confidence of an answer; ABSTAINS_ALWAYS where nothing could be certified.
        questions: the certifying ones.
        answered, wrong: of these, at that confidence; where nothing could be certified, at the first that was tried.
        bound: upper bound of the share of wrong ones.
        judged_by: who says what is wrong: "gold" labels, or the "teacher", whose majority answers stand in for them; ""
            where an earlier version did not note it.
    """

    risk: float
    certainty: float
    abstain_below: float
    questions: int
    answered: int
    wrong: int
    bound: float
    judged_by: str = ""

    @property
    def certified(self) -> bool:
        """Whether anything is answered."""
        return self.abstain_below < ABSTAINS_ALWAYS

    @property
    def told(self) -> str:
        """The promise in one line."""
        means = " Wrong means: not the teacher's majority answer." if self.judged_by == "teacher" else ""
        if not self.certified:
            return (
                f"no threshold keeps the risk at {self.risk:.1%}, so the student abstains from every question: of "
                f"{self.questions:,} certifying questions it answered its surest {self.answered:,}, {self.wrong:,} of "
                f"them wrongly, so up to {self.bound:.1%} may be wrong. Allow a larger registry.risk, or name more "
                f"validation questions.{means}"
            )
        return (
            f"answers from a confidence of {self.abstain_below:.1%} on: {self.answered:,} of {self.questions:,} "
            f"certifying questions, {self.wrong:,} of them wrongly, so at most {self.bound:.1%} are wrong "
            f"({self.certainty:.0%} certainty; registry.risk is {self.risk:.1%}).{means}"
        )


class Abstention(BaseModel):
    """What abstaining gives on labelled questions.

    Attributes:
        promise: what was promised; None of a student that was only trained to refuse (`method.abstain_below`).
        questions: how many were asked.
        answered, wrong: how many got an answer, and how many of these a wrong one.
        coverage: answered / questions, with its 95 % interval (Clopper and Pearson).
        risk: wrong / answered likewise; None where nothing is answered.
    """

    promise: Promise | None
    questions: int
    answered: int
    wrong: int
    coverage: float
    coverage_interval: tuple[float, float]
    risk: float | None
    risk_interval: tuple[float, float]


class Calibrated(Outcome):
    """How the student of the best round chooses its answers.

    Attributes:
        t: the round.
        questions: validation questions that it was fitted to.
        decisions: one for each number of samples; the first is what the student is registered with.
        sources: what the first one's confidence might go by, the best first, with the area under the risk-coverage
            curve; empty without `registry.risk`.
        promise: None likewise.
        seconds: how long it took.
    """

    t: int
    questions: int
    decisions: tuple[Decision, ...]
    sources: dict[str, float] = {}
    promise: Promise | None = None
    seconds: float = 0.0

    @property
    def confidence_from(self) -> str:
        """What the first decision's confidence goes by."""
        return next(iter(self.sources), "combination")


class ReliabilityBin(BaseModel):
    """Questions of which the student is about equally sure.

    Attributes:
        questions: how many.
        confidence: mean, 0 to 1.
        right: share that is right.
    """

    questions: int
    confidence: float
    right: float


class Decided(BaseModel):
    """What choosing between bare answer and rationales gives.

    Attributes:
        samples: sampled rationales for each question, beside the likeliest one.
        correct: questions answered rightly.
        accuracy: correct / all questions.
        calibration_error: mean distance of confidence and share of right answers over the bins (expected calibration
            error, Naeini et al. 2015), 0 to 1.
        reliability: the bins, the least sure first.
        aurc: area under the risk-coverage curve, 0 to 1, lower is better; None where it was not computed.
        risks: that curve: the share of wrong answers among the surest 5, 10 ... 100 % of the questions.
        abstention: None where the student never abstains.
    """

    samples: int
    correct: int
    accuracy: float
    calibration_error: float
    reliability: tuple[ReliabilityBin, ...]
    aurc: float | None = None
    risks: tuple[float, ...] = ()
    abstention: Abstention | None = None


class Evaluation(Outcome):
    """A student's figures on one part of the questions.

    Attributes:
        t: the round that ended with this student.
        part: validation or test.
        questions: questions with a label to compare with.
        answered: questions whose bare answer could be read.
        correct: questions whose bare answer equals the label.
        accuracy: correct / questions.
        explained: questions with a rationale whose own answer could be read; 0 if no rationales were asked for.
        explanation_accuracy: rationales whose own answer equals the label / questions; None if none were asked for, or
            if answers are sets of labels, which a rationale does not announce.
        consistency: answers that equal their rationale's own / questions; None likewise.
        too_long: questions longer than the student reads; they count as wrong.
        asked: content id of the test questions; None for the validation questions, which the training's id covers.
        judged_by: `gold`, or `teacher` if majority answers stand in for missing labels.
        decided: what choosing between bare answer and rationales gives: on the test questions, for each number of
            samples, the first being what the student is registered with; on the validation questions, to which the
            choice is fitted, without any.
        seconds: how long it took.
    """

    t: int
    part: Part
    questions: int
    answered: int
    correct: int
    accuracy: float
    explained: int = 0
    explanation_accuracy: float | None = None
    consistency: float | None = None
    too_long: int = 0
    asked: str | None = None
    judged_by: str = "gold"
    decided: tuple[Decided, ...] = ()
    seconds: float = 0.0

    @property
    def abstention(self) -> Abstention | None:
        """What abstaining gives, as the student is served; None where it never abstains."""
        return self.decided[0].abstention if self.decided else None

    @property
    def given_correct(self) -> int:
        """Questions answered rightly as the student answers when it is served."""
        return self.decided[0].correct if self.decided else self.correct

    @property
    def given_accuracy(self) -> float:
        """given_correct / questions."""
        return self.decided[0].accuracy if self.decided else self.accuracy
