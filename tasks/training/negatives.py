"""The student's own rationales in its training (docs/distillation.md).

Two kinds are sampled before a round, and stored like a teacher's samples:

    negatives    one hot text a question, from the student of an earlier round, whatever it answers
    own samples  a few cooler ones, from the student as it is; their answers say which are good and which are bad
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.generation import Generated, generate
from models.methods import MethodConfig
from models.prefixes import EXPLAIN
from models.seeds import derived_seed
from models.student_loading import load_student
from models.trainer import torch_device
from storage.datasets.definition import Dataset, Parsed
from storage.ids import content_id
from storage.rationales import rationale_row
from storage.schemas import RATIONALES
from storage.store import Store
from tasks.serving.answering import read_text
from tasks.training.folder import Training
from tasks.training.initial import question_lengths
from tasks.training.outcomes import NegativesSampled
from tasks.training.own_rationales import NEGATIVE, is_right
from tasks.training.shares import Share, other_shares
from tasks.training.spec import NegativesConfig, OwnSamplesConfig, TrainingSpec

AT_ONCE = 4096
"""Texts sampled per part file: the most that a killed process loses."""


def sample_negatives(folder: Path, t: int, on_progress: Callable[[int, int], None] | None = None) -> NegativesSampled:
    """Samples what the student itself adds to a round's rationales, unless it is stored.

    Args:
        folder: the training's folder.
        t: the round that needs them.
        on_progress: called with (texts done, texts in all).
    """
    training = Training(folder)
    return training.once(NegativesSampled, lambda: _sample(training, t, on_progress), t)


@dataclass(frozen=True)
class _Wanted:
    """One text to be sampled."""

    question: dict[str, Any]
    index: int
    seed: int
    before: int
    sampling: NegativesConfig | OwnSamplesConfig


def _sample(training: Training, t: int, on_progress: Callable[[int, int], None] | None) -> NegativesSampled:
    spec, store = training.spec, training.store
    started = time.monotonic()
    wanted = dict(_wanted(training, t))
    done = NegativesSampled(round_before=_negatives_before(spec, t), samples=0, own_before=spec.own_before(t))
    if not wanted:
        return done
    befores = sorted({one.before for one in wanted.values()})
    stored = {key for before in befores for key in _all_stored(store, spec, before)}
    with other_shares(training, t, "negatives") as share:
        _write_missing(training, wanted, stored, share, on_progress)
    rows = {key: row for before in befores for key, row in _all_stored(store, spec, before).items()}
    done.sampled = sum(key in rows and key not in stored for key in wanted)
    samples = [(rows[key], one) for key, one in wanted.items() if key in rows]
    hot = [(row, one) for row, one in samples if one.index == NEGATIVE]
    own = [(row, one) for row, one in samples if one.index != NEGATIVE]
    done.samples, done.own_samples = len(hot), len(own)
    done.unfinished = sum(row["finish_reason"] == "length" for row, _ in hot)
    dataset = training.dataset
    done.right, done.own_right = (sum(is_right(row, one.question, dataset) for row, one in kind) for kind in (hot, own))
    done.seconds = time.monotonic() - started
    return done


def sample_share(training: Training, t: int, share: Share) -> None:
    """Samples and stores one share of the texts that round t lacks."""
    wanted = dict(_wanted(training, t))
    befores = {one.before for one in wanted.values()}
    stored = {key for before in befores for key in _all_stored(training.store, training.spec, before)}
    _write_missing(training, wanted, stored, share, None)


def _write_missing(
    training: Training,
    wanted: dict[str, _Wanted],
    stored: set[str],
    share: Share,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Samples what is not stored of one share. Which share a text is in does not depend on what is stored: others are
    storing theirs. Progress is this share's."""
    missing: dict[int, dict[str, _Wanted]] = {}
    for place, (key, one) in enumerate(wanted.items()):
        if share.has(place) and key not in stored:
            missing.setdefault(one.before, {})[key] = one
    total, finished = sum(map(len, missing.values())), 0
    for _, texts in sorted(missing.items()):
        _write(training, texts, finished, total, on_progress)
        finished += len(texts)


def _negatives_before(spec: TrainingSpec, t: int) -> int | None:
    return spec.config.negatives.round_before(t) if spec.config.method.uses_negatives else None


def _wanted(training: Training, t: int) -> Iterator[tuple[str, _Wanted]]:
    """sample_id -> what round t needs of the student."""
    spec = training.spec
    negatives, own = spec.config.negatives, spec.config.own
    before, own_before = _negatives_before(spec, t), spec.own_before(t)
    if before is None and own_before is None:
        return
    seed = spec.config.optimisation.seed
    for row in chain.from_iterable(training.example_parts(["example_id", "question", "choices", "answer"])):
        example = row["example_id"]
        if before is not None:
            request = negatives.model_dump(exclude={"lag", "batch_size", "keep"})
            one = _Wanted(row, NEGATIVE, derived_seed("negative", seed, before, example), before, negatives)
            yield _sample_id(spec, one, request), one
        if own_before is not None:
            request = own.model_dump(include={"temperature", "top_p", "top_k"})
            for index in range(1, own.samples + 1):
                own_seed = derived_seed("own", seed, own_before, example, index)
                one = _Wanted(row, index, own_seed, own_before, own)
                yield _sample_id(spec, one, request | {"index": index}), one


def _sample_id(spec: TrainingSpec, one: _Wanted, request: dict[str, Any]) -> str:
    request = {"example": one.question["example_id"], "student": spec.student_name(one.before), **request}
    return content_id("student", request, spec.config.optimisation.seed)


def _write(
    training: Training,
    wanted: dict[str, _Wanted],
    finished: int,
    total: int,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Samples texts from one round's student and stores them, but for those of questions that are too long for it."""
    before = next(iter(wanted.values())).before
    spec, dataset, store = training.spec, training.dataset, training.store
    student = load_student(training.model(before), spec.config.student)
    student = student.to(torch_device(spec.config.optimisation))
    # Questions that are too long are not trained on, so they need no rationale.
    lengths = question_lengths(student, dataset, [one.question for one in wanted.values()])
    fits = {key: length <= student.max_input_tokens for key, length in zip(wanted, lengths, strict=True)}
    keys = [key for key, fitting in fits.items() if fitting]
    finished += len(fits) - len(keys)
    longest = spec.config.negatives.max_tokens or student.max_target_tokens
    for kind in (NegativesConfig, OwnSamplesConfig):
        of_kind = [key for key in keys if isinstance(wanted[key].sampling, kind)]
        for start in range(0, len(of_kind), AT_ONCE):
            part = of_kind[start : start + AT_ONCE]
            asked = [wanted[key] for key in part]
            sampling = asked[0].sampling
            written = generate(
                student,
                [
                    EXPLAIN + dataset.student_input(one.question["question"], tuple(one.question["choices"]))
                    for one in asked
                ],
                max_new_tokens=longest if isinstance(sampling, NegativesConfig) else student.max_target_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                seeds=[one.seed for one in asked],
                batch_size=spec.config.negatives.batch_size,
                on_progress=on_progress and (lambda n, _, start=finished: on_progress(start + n, total)),  # type: ignore[misc]
            )
            found = [_row(dataset, spec, key, one, text) for key, one, text in zip(part, asked, written, strict=True)]
            store.append(RATIONALES, pa.Table.from_pylist(found, RATIONALES.schema))
            finished += len(part)


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


def read_own(dataset: Dataset, method: MethodConfig, text: str, choices: tuple[str, ...]) -> Parsed:
    """What the student wrote under `explain: `. An answer that stands before its rationale counts if both agree."""
    if not method.one_target:
        # A student is trained on rationales without a closing answer, so all it wrote is its rationale.
        return replace(dataset.parse(text, choices), rationale=text)
    said = read_text(dataset, "answer, then rationale", text, choices)
    if said.answer is None or said.rationale_answer not in (None, said.answer):
        return Parsed(said.rationale or "", None, "no answer found" if said.answer is None else "two answers")
    return Parsed(said.rationale or "", said.answer, None)


def _row(dataset: Dataset, spec: TrainingSpec, sample_id: str, one: _Wanted, written: Generated) -> dict[str, Any]:
    parsed = read_own(dataset, spec.config.method, written.text, tuple(one.question["choices"]))
    return rationale_row(
        "student",
        sample_id=sample_id,
        example_id=one.question["example_id"],
        dataset=dataset.name,
        split=spec.train.split,
        model=spec.name,
        round=one.before,
        sample_index=one.index,
        seed=one.seed,
        temperature=one.sampling.temperature,
        top_p=one.sampling.top_p,
        top_k=one.sampling.top_k,
        token_ids=list(written.ids),
        text=written.text,
        parsed=parsed,
        finish_reason=written.finish_reason,
        completion_tokens=written.tokens,
        run_id=spec.training_id,
    )
