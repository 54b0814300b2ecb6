"""The end of a distillation: registers the best student and holds it against the champion."""

from pathlib import Path

from tasks.serving.settings import AskingConfig, Question, ServedConfig
from tasks.tracking.client import LoggedRound, Tracking
from tasks.tracking.gate import Verdict
from tasks.tracking.packaging import ToServe, model_name
from tasks.tracking.registry import Registered, hold_gate, register
from tasks.tracking.settings import RegistrySettings
from tasks.training.folder import Training
from tasks.training.outcomes import Calibrated, Preparation, QualityUpdated
from tasks.training.spec import writes


def register_best(
    tracking: Tracking, folder: Path, logged: LoggedRound, settings: RegistrySettings, lineage: dict[str, str]
) -> Registered:
    """Registers the student of a training's best round, with its discriminator.

    Args:
        folder: the training's folder.
        logged: the best round in MLflow.
        lineage: further tags.
    """
    training, best = Training(folder), logged.round
    spec = training.spec
    quality = training.outcome(QualityUpdated, best)
    version = quality.version if quality else None
    student = spec.config.student
    judges = spec.config.method.quality_source == "judge"
    calibrated = training.outcome(Calibrated, best)
    decisions, promise = (calibrated.decisions, calibrated.promise) if calibrated else ((), None)
    config = ServedConfig(
        dataset=spec.dataset,
        asking=AskingConfig(
            writes=writes(spec.config.method),
            answer_tokens=spec.config.rounds.answer_tokens,
            samples=decisions[0].samples if decisions else 0,
            temperature=spec.config.answering.temperature,
            decisions=decisions,
        ),
        dtype=student.dtype,
        max_input_tokens=student.max_input_tokens,
        max_target_tokens=student.max_target_tokens,
        judges=judges,
        abstain_below=promise.abstain_below if promise else None,
    )
    first = next(training.example_parts())[0]
    parts = ToServe(
        student=training.model(best),
        discriminator=training.discriminator(version) if version is not None and not judges else None,
        config=config,
        examples=[Question(first["question"], tuple(first["choices"]))],
    )
    about = {"student": spec.student_name(best), "store": spec.store, **lineage}
    preparation = training.outcome(Preparation)
    if preparation and preparation.refusals:
        about["refuses_below"] = f"{spec.config.method.abstain_below:g}"
    if calibrated and promise:
        about |= {
            "risk": f"{promise.risk:g}",
            "abstain_below": f"{promise.abstain_below:.6g}",
            "coverage": f"{promise.answered / promise.questions:.4g}" if promise.certified else "0",
            "confidence_from": calibrated.confidence_from,
            **({"judged_by": promise.judged_by} if promise.judged_by else {}),
        }
    return register(tracking, settings.name or model_name(training.dataset.name), logged, parts, about)


def judge_registered(tracking: Tracking, folder: Path, challenger: Registered, settings: RegistrySettings) -> Verdict:
    """Holds a registered student against the champion on this training's test questions."""
    training = Training(folder)
    spec, store = training.spec, training.store

    def rights(version: Registered) -> dict[str, bool]:
        student = version.tags.get("qcrd.student")
        return spec.test.rights(store, student) if spec.test and student else {}

    return hold_gate(tracking, challenger, rights, settings.level)
