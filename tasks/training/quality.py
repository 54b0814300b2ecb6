"""The discriminator's part of a round (docs/distillation.md): train or update it, and score every rationale.

Scores are rows of the store, under the round in which the discriminator last changed. Rounds without an update share
them, and only new rationales get one. With `method.quality_by: judge` the student scores, anew in every round.
"""

import shutil
import time
from array import array
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import mannwhitneyu

from models.batches import epoch_batches
from models.configs import OptimisationConfig
from models.corruption import balancing_negatives, mask_word, words_of
from models.discriminator import Discriminator, load_discriminator, make_discriminator
from models.discriminator_training import DiscriminatorTraining, JudgedExample, collate, packed, unpacked
from models.example_file import ExampleFile
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
from tasks.training.own_rationales import OwnRationales, own_in_parts
from tasks.training.shares import Share, other_shares
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
    return _by_id(stored_scores(store, spec, version))


def stored_scores(store: Store, spec: TrainingSpec, version: int) -> pa.Table:
    """`scores_of` as columns, which take a fifth of the memory: sample_id and score."""
    with store.connect() as con:
        return store.execute(
            con,
            f"SELECT sample_id, score FROM {store.relation(SCORES, spec.train.partition)} "
            "WHERE run_id = $1 AND round = $2",
            [spec.training_id, version],
        )


def scores_among(stored: pa.Table, ids: Collection[str]) -> dict[str, float]:
    """sample_id -> score, of some samples."""
    return _by_id(stored.filter(pc.is_in(stored["sample_id"], value_set=pa.array(ids, pa.string()))))


def _by_id(rows: pa.Table) -> dict[str, float]:
    return dict(zip(rows["sample_id"].to_pylist(), rows["score"].to_pylist(), strict=True))


def version_of(spec: TrainingSpec, t: int) -> int:
    """The round in which what scores in round t last changed."""
    if spec.config.method.quality_source == "judge":
        return t
    return t - t % spec.config.discriminator.update_every


def _judged(training: Training, t: int) -> Iterator[list[dict[str, Any]]]:
    """The questions of a training with their good and bad rationales as (sample_id, text), a part at a time."""
    place = 0
    for rows, own in own_in_parts(training.store, training.spec, t, training.example_parts):
        part: list[dict[str, Any]] = []
        for row in rows:
            made = own.get(row["example_id"], OwnRationales())
            part.append(
                {
                    "question": training.dataset.student_input(row["question"], tuple(row["choices"])),
                    "positives": [(item["sample_id"], item["text"]) for item in (*row["positives"], *made.positives)],
                    "minority": [(item["sample_id"], item["text"]) for item in row["negatives"]],
                    "student": [(item["sample_id"], item["text"]) for item in made.negatives],
                    "held_out": is_held_out(place),
                }
            )
            place += 1
        yield part


def _update(training: Training, t: int, on_report: StepReport | None) -> QualityUpdated:
    spec, store = training.spec, training.store
    if spec.config.method.quality_source is None:
        return QualityUpdated(version=None)
    started = time.monotonic()
    version = version_of(spec, t)
    judges = spec.config.method.quality_source == "judge"
    steps = _train(training, t, on_report) if version == t and not judges else 0
    known = scores_of(store, spec, version)
    with other_shares(training, t, "scores") as share:
        too_long = score_share(training, t, share)
    scores = scores_of(store, spec, version)
    if share.of > 1:  # what has no score now has too many tokens, in whatever share it is
        too_long = sum(key not in scores for rows in _judged(training, t) for key, _, _ in _rationales(rows))
    return QualityUpdated(
        version=version, steps=steps, scored=len(scores) - len(known), too_long=too_long,
        **_measured(training, t, scores), seconds=time.monotonic() - started,
    )  # fmt: skip


def score_share(training: Training, t: int, share: Share) -> int:
    """Scores and stores what has no score in one share of the rationales; returns how many are too long."""
    spec, store = training.spec, training.store
    version = version_of(spec, t)
    judge = scorer(training, t - 1 if spec.config.method.quality_source == "judge" else version)
    known = scores_of(store, spec, version)
    new: dict[str, float] = {}
    too_long = 0
    for rows in _judged(training, t):
        found, over = _score(judge, [row for place, row in enumerate(rows) if share.has(place)], known)
        new |= found
        too_long += over
    if new:
        _store_scores(store, spec, version, new)
    return too_long


def _rationales(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """(sample_id, question, text) of all rationales of questions."""
    for row in rows:
        for key, text in (*row["positives"], *row["minority"], *row["student"]):
            yield key, row["question"], text


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


def _train(training: Training, t: int, on_report: StepReport | None) -> int:
    """Trains one version in its folder, or finds it there; returns the steps, 0 if there is nothing to train on."""
    with ExampleFile(training.round(t), packed, unpacked) as examples:
        return _trained(training, t, examples, on_report)


def _trained(training: Training, t: int, examples: ExampleFile[JudgedExample], on_report: StepReport | None) -> int:
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
    lengths = array("i")
    for example in _examples(reader, training, t):
        examples.append(example)
        lengths.append(example.length)
    steps = (config.pretrain_steps if t == 0 else config.update_steps) if examples else 0
    if made.is_dir():  # trained, but scoring was interrupted
        shutil.rmtree(work, ignore_errors=True)
        return steps
    seeds = (derived_seed("discriminator", spec.config.optimisation.seed, t, epoch) for epoch in count())
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


def _examples(discriminator: Discriminator, training: Training, t: int) -> Iterator[JudgedExample]:
    """Training examples: positives against negatives, with corrupted positives in place of missing negatives."""
    spec, config = training.spec, training.spec.config.discriminator
    rows = chain.from_iterable(_judged(training, t))
    vocabulary = words_of(text for row in rows for _, text in row["positives"])
    mask = mask_word(discriminator.tokenizer)
    for row in chain.from_iterable(_judged(training, t)):
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
    judge: Discriminator | Judge, rows: list[dict[str, Any]], known: Mapping[str, float]
) -> tuple[dict[str, float], int]:
    """Scores what has no known score.

    Returns:
        sample_id -> score of what is new, and how many are too long.
    """
    missing = [one for one in _rationales(rows) if one[0] not in known]
    ids = judge.pair_ids([question for _, question, _ in missing], [text for _, _, text in missing])
    fitting = [item for item, pair in zip(missing, ids, strict=True) if len(pair) <= judge.max_tokens]
    values = judge.score([question for _, question, _ in fitting], [text for _, _, text in fitting]) if fitting else ()
    found = {key: float(value) for (key, _, _), value in zip(fitting, values, strict=True)}
    return found, len(missing) - len(fitting)


def _store_scores(store: Store, spec: TrainingSpec, version: int, scores: Mapping[str, float]) -> None:
    constant = {"round": version, "run_id": spec.training_id, "dataset": spec.train.dataset,
                "split": spec.train.split, "created_at": now()}  # fmt: skip
    own = {"sample_id": pa.array(scores.keys(), pa.string()), "score": pa.array(scores.values(), pa.float64())}
    columns = [
        own[field.name].cast(field.type)
        if field.name in own
        else pa.repeat(pa.scalar(constant[field.name], field.type), len(scores))
        for field in SCORES.schema
    ]
    with store.lock(f"scores {spec.train.dataset}/{spec.train.split}"):
        store.upsert(SCORES, pa.table(columns, SCORES.schema))


def _measured(training: Training, t: int, scores: dict[str, float]) -> dict[str, float | None]:
    """The discriminator's figures on the questions it was not trained on."""
    kinds: dict[str, list[float]] = {"positives": [], "minority": [], "student": []}
    for row in chain.from_iterable(_judged(training, t)):
        if row["held_out"]:
            for kind, values in kinds.items():
                values += [scores[key] for key, _ in row[kind] if key in scores]
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
