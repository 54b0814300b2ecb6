"""Negatives from the student's own past (docs/distillation.md).

They are sampled from an earlier round at a high temperature, and stored like a teacher's samples.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.generation import Generated, generate
from models.seeds import derived_seed
from models.student import EXPLAIN
from models.student_loading import load_student
from models.trainer import torch_device
from storage.datasets.definition import Dataset
from storage.ids import content_id, rationale_hash
from storage.rationales import rationale_row
from storage.schemas import RATIONALES
from storage.store import Store
from storage.votes import NO_RATIONALE
from tasks.training.folder import Training
from tasks.training.initial import question_lengths
from tasks.training.outcomes import NegativesSampled
from tasks.training.spec import NegativesConfig, TrainingSpec

AT_ONCE = 4096
"""Questions sampled per part file: the most that a killed process loses."""


def sample_negatives(folder: Path, t: int, on_progress: Callable[[int, int], None] | None = None) -> NegativesSampled:
    """Samples one rationale for every training question from the student of an earlier round, unless it is stored.

    Args:
        folder: the training's folder.
        t: the round that needs them.
        on_progress: called with (questions done, questions in all).
    """
    training = Training(folder)
    return training.once(NegativesSampled, lambda: _sample(training, t, on_progress), t)


def own_negatives(
    store: Store, spec: TrainingSpec, t: int, rows: Iterable[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The student's rationales that round t takes as negatives: at most one per question.

    A text that repeats a positive or a teacher's negative of its question is left out: a text counts once. With
    `negatives.keep: wrong` so is one whose own answer equals the question's answer target.

    Args:
        t: the round; the student of an earlier one wrote them.
        rows: the questions with their teacher's rationales, as in `tasks.training.training_set.SCHEMA`.

    Returns:
        example_id -> sample_id, text, token_ids (null in older samples), answer and rationale_hash.
    """
    before = spec.config.negatives.round_before(t)
    if before is None or not spec.config.method.uses_negatives:
        return {}
    with store.connect() as con:
        stored: list[dict[str, Any]] = store.execute(
            con,
            "SELECT example_id, sample_id, rationale AS text, token_ids, answer, rationale_hash "
            f"FROM {store.relation(RATIONALES, {**spec.train.partition, 'source': 'student'})} "
            f"WHERE model = $1 AND round = $2 AND rationale_hash <> {NO_RATIONALE} ORDER BY example_id, sample_id",
            [spec.name, before],
        ).to_pylist()
    questions = {row["example_id"]: row for row in rows}
    own = {}
    for made in stored:
        question = questions.get(made["example_id"])
        if question is None:
            continue
        right = made["answer"] is not None and made["answer"] == question["answer"]
        texts = (item["text"] for item in (*question["positives"], *question["negatives"]))
        repeats = made["rationale_hash"] in map(rationale_hash, texts)
        if not repeats and not (right and spec.config.negatives.keep == "wrong"):
            own[made["example_id"]] = made
    return own


def _sample(training: Training, t: int, on_progress: Callable[[int, int], None] | None) -> NegativesSampled:
    spec, dataset, store = training.spec, training.dataset, training.store
    before = spec.config.negatives.round_before(t)
    if before is None or not spec.config.method.uses_negatives:
        return NegativesSampled(round_before=None)
    started = time.monotonic()
    config = spec.config.negatives
    rows = training.examples().select(["example_id", "question", "choices", "answer"]).to_pylist()
    wanted = {_sample_id(spec, config, before, row["example_id"]): row for row in rows}
    stored = set(_all_stored(store, spec, before))
    missing = [key for key in wanted if key not in stored]
    done = NegativesSampled(round_before=before, samples=len(wanted))
    if missing:
        student = load_student(training.model(before), spec.config.student)
        student = student.to(torch_device(spec.config.optimisation))
        longest = config.max_tokens or student.max_target_tokens
        # Questions that are too long are not trained on, so they need no negative.
        lengths = question_lengths(student, dataset, [wanted[key] for key in missing])
        fits = [length <= student.max_input_tokens for length in lengths]
        missing = [key for key, fitting in zip(missing, fits, strict=True) if fitting]
        done.samples -= fits.count(False)
        for start in range(0, len(missing), AT_ONCE):
            keys = missing[start : start + AT_ONCE]
            asked = [wanted[key] for key in keys]
            seeds = [
                derived_seed("negative", spec.config.optimisation.seed, before, row["example_id"]) for row in asked
            ]
            written = generate(
                student,
                [EXPLAIN + dataset.student_input(row["question"], tuple(row["choices"])) for row in asked],
                max_new_tokens=longest,
                temperature=config.temperature,
                top_p=config.top_p,
                top_k=config.top_k,
                seeds=seeds,
                batch_size=config.batch_size,
                on_progress=on_progress and (lambda n, _, start=start: on_progress(start + n, len(missing))),  # type: ignore[misc]
            )
            found = [
                _row(dataset, spec, config, before, key, row, seed, text)
                for key, row, seed, text in zip(keys, asked, seeds, written, strict=True)
            ]
            store.append(RATIONALES, pa.Table.from_pylist(found, RATIONALES.schema))
            done.sampled += len(found)
    samples = [(row, wanted[key]) for key, row in _all_stored(store, spec, before).items() if key in wanted]
    done.unfinished = sum(row["finish_reason"] == "length" for row, _ in samples)
    done.right = sum(row["answer"] is not None and row["answer"] == question["answer"] for row, question in samples)
    done.seconds = time.monotonic() - started
    return done


def _sample_id(spec: TrainingSpec, config: NegativesConfig, before: int, example: str) -> str:
    request = {
        "example": example,
        "student": spec.student_name(before),
        **config.model_dump(exclude={"lag", "batch_size", "keep"}),
    }
    return content_id("student", request, spec.config.optimisation.seed)


def _all_stored(store: Store, spec: TrainingSpec, before: int) -> dict[str, dict[str, Any]]:
    """The stored samples of a round's student: sample_id -> finish_reason and answer."""
    with store.connect() as con:
        rows = store.execute(
            con,
            "SELECT sample_id, finish_reason, answer "
            f"FROM {store.relation(RATIONALES, {**spec.train.partition, 'source': 'student'})} "
            "WHERE model = $1 AND round = $2",
            [spec.name, before],
        ).to_pylist()
    return {row["sample_id"]: row for row in rows}


def _row(
    dataset: Dataset,
    spec: TrainingSpec,
    config: NegativesConfig,
    before: int,
    sample_id: str,
    row: dict[str, Any],
    seed: int,
    written: Generated,
) -> dict[str, Any]:
    # A student is trained on rationales without a closing answer, so all it wrote is its rationale.
    parsed = replace(dataset.parse(written.text, tuple(row["choices"])), rationale=written.text)
    return rationale_row(
        "student",
        sample_id=sample_id,
        example_id=row["example_id"],
        dataset=dataset.name,
        split=spec.train.split,
        model=spec.name,
        round=before,
        sample_index=0,
        seed=seed,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        token_ids=list(written.ids),
        text=written.text,
        parsed=parsed,
        finish_reason=written.finish_reason,
        completion_tokens=written.tokens,
        run_id=spec.training_id,
    )
