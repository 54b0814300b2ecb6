"""The end of a distillation: the best student registered, and held against the champion."""

from pathlib import Path
from typing import Any

from models.folders import MODEL
from storage.schemas import PREDICTIONS
from storage.store import Store
from tasks.serving.settings import AskingConfig, Question, ServedConfig
from tasks.tracking.client import LoggedRound, Tracking
from tasks.tracking.gate import Verdict
from tasks.tracking.packaging import ToServe, model_name
from tasks.tracking.registry import Registered, hold_gate, register
from tasks.tracking.settings import RegistrySettings
from tasks.training.outcomes import QUALITY_FILE, QualityUpdated, checkpoint_of, discriminator_folder, read_outcome
from tasks.training.spec import TrainingSpec, open_training, read_examples, round_folder, writes


def register_best(
    tracking: Tracking, folder: Path, logged: LoggedRound, settings: RegistrySettings, lineage: dict[str, str]
) -> Registered:
    """Registers the student of a training's best round, with its discriminator.

    Args:
        folder: of the training.
        logged: the best round, as MLflow knows it.
        lineage: further tags.
    """
    spec, dataset, _ = open_training(folder)
    best = logged.round
    quality = read_outcome(round_folder(folder, best) / QUALITY_FILE, QualityUpdated)
    version = quality.version if quality else None
    student = spec.config.student
    config = ServedConfig(
        dataset=spec.dataset,
        asking=AskingConfig(writes=writes(spec.config.method), answer_tokens=spec.config.rounds.answer_tokens),
        dtype=student.dtype,
        max_input_tokens=student.max_input_tokens,
        max_target_tokens=student.max_target_tokens,
    )
    first: dict[str, Any] = read_examples(folder).slice(0, 1).to_pylist()[0]
    parts = ToServe(
        student=checkpoint_of(folder, best) / MODEL,
        discriminator=discriminator_folder(folder, version) if version is not None else None,
        config=config,
        examples=[Question(first["question"], tuple(first["choices"]))],
    )
    about = {"student": spec.student_name(best), "store": spec.store, **lineage}
    return register(tracking, settings.name or model_name(dataset.name), logged, parts, about)


def judge_registered(tracking: Tracking, folder: Path, challenger: Registered, settings: RegistrySettings) -> Verdict:
    """Holds a registered student against the champion on this training's test questions."""
    spec, _, store = open_training(folder)
    return hold_gate(tracking, challenger, lambda version: right_answers(store, spec, version), settings.level)


def right_answers(store: Store, spec: TrainingSpec, version: Registered) -> dict[str, bool]:
    """example_id -> whether a registered version answered it right, over this training's test questions."""
    student = version.tags.get("qcrd.student")
    if spec.test is None or student is None:
        return {}
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT example_id, correct FROM {store.relation(PREDICTIONS, spec.test.partition)} "
            f"SEMI JOIN {spec.test.sql(store)} USING (example_id) WHERE model = $1",
            [student],
        ).to_pylist()
    return {row["example_id"]: row["correct"] for row in rows}
