"""The discriminator's part of a round (docs/distillation.md): train or update it, and score every rationale.

Scores are rows of the store, under the round in which the discriminator last changed. Rounds without an update share
them, and only new rationales get one. With `method.quality_by: judge` the student scores, anew in every round.
"""

import shutil
import time
from collections.abc import Iterable
from itertools import count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from scipy.stats import mannwhitneyu

from models.batches import epoch_batches
from models.configs import OptimisationConfig
from models.corruption import balancing_negatives, mask_word, words_of
from models.discriminator import Discriminator, load_discriminator, make_discriminator
from models.discriminator_training import DiscriminatorTraining, JudgedExample, collate
from models.folders import MODEL, whole_folder
from models.judge import Judge
from models.losses import discriminator_weight
from models.seeds import derived_seed
from models.student_loading import load_student
from models.trainer import RoundPlan, StepReport, torch_device, train
from storage.schemas import SCORES
from storage.store import Store, now
from tasks.training.folder import Training
from tasks.training.outcomes import QualityUpdated
from tasks.training.own_rationales import OwnRationales, own_rationales
from tasks.training.spec import INITIAL, TrainingSpec
from tasks.training.training_set import is_held_out

PAPERS_WEIGHT = 0.5
"""The paper's a3 in round 0. With this a3, `discriminator.learning_rate` is used as it is."""


def update_quality(folder: Path, t: int, on_report: StepReport | None = None) -> QualityUpdated:
    """Trains the discriminator before round 0, updates it every `update_every` rounds, and scores what has no score.

    Args:
        folder: the training's folder.
        t: the round that needs the scores.
        on_report: called with figures of the optimizer's steps.
    """
    training = Training(folder)
    return training.once(QualityUpdated, lambda: _update(training, t, on_report), t)


def scores_of(store: Store, spec: TrainingSpec, version: int) -> dict[str, float]:
    """sample_id -> quality score by one version of a training's discriminator."""
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT sample_id, score FROM {store.relation(SCORES, spec.train.partition)} "
            "WHERE run_id = $1 AND round = $2",
            [spec.training_id, version],
        )
    return dict(zip(rows["sample_id"].to_pylist(), rows["score"].to_pylist(), strict=True))


def version_of(spec: TrainingSpec, t: int) -> int:
    """The round in which what scores in round t last changed."""
    if spec.config.method.quality_source == "judge":
        return t
    return t - t % spec.config.discriminator.update_every


def _judged(training: Training, t: int) -> list[dict[str, Any]]:
    """The questions of a training with their good and bad rationales as (sample_id, text)."""
    examples = training.examples().to_pylist()
    own = own_rationales(training.store, training.spec, t, examples)
    rows: list[dict[str, Any]] = []
    for place, row in enumerate(examples):
        made = own.get(row["example_id"], OwnRationales())
        rows.append(
            {
                "question": training.dataset.student_input(row["question"], tuple(row["choices"])),
                "positives": [(item["sample_id"], item["text"]) for item in (*row["positives"], *made.positives)],
                "minority": [(item["sample_id"], item["text"]) for item in row["negatives"]],
                "student": [(item["sample_id"], item["text"]) for item in made.negatives],
                "held_out": is_held_out(place),
            }
        )
    return rows


def _update(training: Training, t: int, on_report: StepReport | None) -> QualityUpdated:
    spec, store = training.spec, training.store
    if spec.config.method.quality_source is None:
        return QualityUpdated(version=None)
    started = time.monotonic()
    version = version_of(spec, t)
    rows = _judged(training, t)
    judges = spec.config.method.quality_source == "judge"
    steps = _train(training, rows, t, on_report) if version == t and not judges else 0
    judge = scorer(training, t - 1 if judges else version)
    known = scores_of(store, spec, version)
    scored, too_long = _score(store, spec, judge, rows, version, known)
    return QualityUpdated(
        version=version, steps=steps, scored=scored, too_long=too_long, **_measured(rows, known),
        seconds=time.monotonic() - started,
    )  # fmt: skip


def scorer(training: Training, version: int) -> Discriminator | Judge:
    """Who scores rationales, loaded.

    Args:
        version: of the discriminator; or the round whose student judges.
    """
    spec = training.spec
    device = torch_device(spec.config.optimisation)
    if spec.config.method.quality_source == "judge":
        return Judge(load_student(training.model(version), spec.config.student).to(device))
    return load_discriminator(training.discriminator(version)).to(device)


def _train(training: Training, rows: list[dict[str, Any]], t: int, on_report: StepReport | None) -> int:
    """Trains one version in its folder, or finds it there; returns the steps, 0 if there is nothing to train on."""
    spec, config = training.spec, training.spec.config.discriminator
    work, made = training.discriminator_work(t), training.discriminator(t)
    start = work / "start"
    if not start.is_dir() and not made.is_dir():
        if t == 0:
            before = make_discriminator(config, load_student(training.model(INITIAL), spec.config.student))
        else:
            before = load_discriminator(training.discriminator(version_of(spec, t - 1)))
        with whole_folder(start) as partial:
            before.save(partial / MODEL)
    reader = load_discriminator(made if made.is_dir() else start / MODEL)
    examples = list(_examples(reader, rows, spec, t))
    steps = (config.pretrain_steps if t == 0 else config.update_steps) if examples else 0
    if made.is_dir():  # trained, but scoring was interrupted
        shutil.rmtree(work, ignore_errors=True)
        return steps
    seeds = (derived_seed("discriminator", spec.config.optimisation.seed, t, epoch) for epoch in count())
    lengths = [example.length for example in examples]
    epochs = (batch for seed in seeds for batch in epoch_batches(lengths, config.batch_size, seed))
    # a3 of eq. 8 scales this loss. Adam takes steps of the same size whatever the scale, so a3's decay, which is meant
    # to calm the discriminator in later rounds, goes into the learning rate.
    method = spec.config.method
    decayed = discriminator_weight(t, method.discriminator_weight, method.discriminator_decay) / PAPERS_WEIGHT
    optimisation = spec.config.optimisation.model_copy(
        update={"batch_size": config.batch_size, "learning_rate": config.learning_rate * decayed,
                "schedule": "constant", "warmup_steps": 0, "optimizer": "adamw", "weight_decay": 0.0}
    )  # fmt: skip
    trained = train(
        load=lambda path: DiscriminatorTraining(load_discriminator(path), config.loss),
        collate=lambda index: collate(examples, index, reader.pad_id),
        plan=RoundPlan(list(islice(epochs, steps)), 0, max(1, steps)),
        config=OptimisationConfig.model_validate(optimisation.model_dump()),
        folder=work,
        start=start,
        on_report=on_report,
    )
    (trained.checkpoint / MODEL).rename(made)
    shutil.rmtree(work)
    return steps


def _examples(
    discriminator: Discriminator, rows: list[dict[str, Any]], spec: TrainingSpec, t: int
) -> Iterable[JudgedExample]:
    """Training examples: positives against negatives, with corrupted positives in place of missing negatives."""
    config = spec.config.discriminator
    vocabulary = words_of(text for row in rows for _, text in row["positives"])
    mask = mask_word(discriminator.tokenizer)
    for row in rows:
        good = [text for _, text in row["positives"]]
        bad = [text for _, text in (*row["minority"], *(row["student"] if t >= config.own_from else ()))]
        if row["held_out"] or not good:
            continue
        seed = derived_seed("corruption", spec.config.optimisation.seed, t, row["question"])
        bad += balancing_negatives(good, bad, vocabulary, mask, config.corruption, seed)
        pairs = discriminator.pair_ids([row["question"]] * (len(good) + len(bad)), good + bad)
        fitting = [len(ids) <= discriminator.max_tokens for ids in pairs]
        positives = [ids for ids, fits in zip(pairs[: len(good)], fitting, strict=False) if fits]
        negatives = [ids for ids, fits in zip(pairs[len(good) :], fitting[len(good) :], strict=True) if fits]
        if positives and negatives:
            yield JudgedExample(positives, negatives)


def _score(
    store: Store,
    spec: TrainingSpec,
    judge: Discriminator | Judge,
    rows: list[dict[str, Any]],
    version: int,
    known: dict[str, float],
) -> tuple[int, int]:
    """Scores what has no score by this version, stores the scores and adds them to `known`.

    Returns:
        How many were scored, and how many are too long.
    """
    missing = [
        (key, row["question"], text)
        for row in rows
        for key, text in (*row["positives"], *row["minority"], *row["student"])
        if key not in known
    ]
    ids = judge.pair_ids([question for _, question, _ in missing], [text for _, _, text in missing])
    fitting = [item for item, pair in zip(missing, ids, strict=True) if len(pair) <= judge.max_tokens]
    if fitting:
        values = judge.score([question for _, question, _ in fitting], [text for _, _, text in fitting])
        found = {key: value for (key, _, _), value in zip(fitting, values.tolist(), strict=True)}
        time_stored = now()
        stored = [
            {"sample_id": key, "round": version, "run_id": spec.training_id, "dataset": spec.train.dataset,
             "split": spec.train.split, "score": value, "created_at": time_stored}
            for key, value in found.items()
        ]  # fmt: skip
        with store.lock(f"scores {spec.train.dataset}/{spec.train.split}"):
            store.upsert(SCORES, pa.Table.from_pylist(stored, SCORES.schema))
        known |= found
    return len(fitting), len(missing) - len(fitting)


def _measured(rows: list[dict[str, Any]], scores: dict[str, float]) -> dict[str, float | None]:
    """The discriminator's figures on the questions it was not trained on."""
    kinds = {
        kind: [scores[key] for row in rows if row["held_out"] for key, _ in row[kind] if key in scores]
        for kind in ("positives", "minority", "student")
    }
    means = {kind: sum(values) / len(values) if values else None for kind, values in kinds.items()}
    return {
        "positive_score": means["positives"],
        "minority_score": means["minority"],
        "student_score": means["student"],
        "auc_minority": area_under_curve(kinds["positives"], kinds["minority"]),
        "auc_student": area_under_curve(kinds["positives"], kinds["student"]),
    }


def area_under_curve(good: list[float], bad: list[float]) -> float | None:
    """The probability that a good rationale has a higher score than a bad one (ties count half); None without both."""
    if not good or not bad:
        return None
    return float(mannwhitneyu(good, bad).statistic) / (len(good) * len(bad))
