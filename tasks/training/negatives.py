"""The student's own rationales in its training (docs/distillation.md).

Two kinds are sampled before a round, and stored like a teacher's samples:

    negatives    one hot text a question, from the student of an earlier round, whatever it answers
    own samples  a few cooler ones, from the student as it is; their answers say which are good and which are bad
"""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from models.generation import Generated, generate
from models.methods import MethodConfig
from models.prefixes import EXPLAIN
from models.seeds import derived_seed
from models.student import Student
from models.student_loading import load_student
from models.trainer import torch_device
from storage.datasets.definition import Dataset, Parsed
from storage.ids import content_id
from storage.rationales import rationale_row
from storage.schemas import RATIONALES
from tasks.serving.answering import read_text
from tasks.training.folder import Training
from tasks.training.initial import question_lengths
from tasks.training.outcomes import NegativesSampled
from tasks.training.own_rationales import NEGATIVE, is_right
from tasks.training.shares import Share, other_shares
from tasks.training.spec import NegativesConfig, OwnSamplesConfig, TrainingSpec

AT_ONCE = 4096
"""Texts sampled per part file: the most that a killed process loses, and that are in memory."""


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
    spec, dataset = training.spec, training.dataset
    started = time.monotonic()
    done = NegativesSampled(round_before=_negatives_before(spec, t), own_before=spec.own_before(t))
    if not _kinds(spec, t):
        return done
    before = _stored(training, t)
    with other_shares(training, t, "negatives") as share:
        _write_missing(training, t, before, share, on_progress)
    stored = _stored(training, t)
    for part in _parts(_wanted(training, t), AT_ONCE):
        known = _rows_of(before, part)
        for key, row in _rows_of(stored, part).items():
            one = part[key]
            right = is_right(row, one.question, dataset)
            done.sampled += key not in known
            if one.index == NEGATIVE:
                done.samples += 1
                done.right += right
                done.unfinished += row["finish_reason"] == "length"
            else:
                done.own_samples += 1
                done.own_right += right
    done.seconds = time.monotonic() - started
    return done


def sample_share(training: Training, t: int, share: Share) -> None:
    """Samples and stores one share of the texts that round t lacks."""
    _write_missing(training, t, _stored(training, t), share, None)


def _write_missing(
    training: Training, t: int, stored: pa.Table, share: Share, on_progress: Callable[[int, int], None] | None
) -> None:
    """Samples what is not stored of one share; progress is this share's."""
    total, finished = sum(1 for _ in _missing(training, t, stored, share)), 0
    if not total:
        return
    for before, sampling in _kinds(training.spec, t):
        student = load_student(training.model(before), training.spec.config.student)
        student = student.to(torch_device(training.spec.config.optimisation))
        missing = (item for item in _missing(training, t, stored, share) if item[1].sampling is sampling)
        for part in _parts(missing, AT_ONCE):
            _write(training, student, part, finished, total, on_progress)
            finished += len(part)


def _missing(training: Training, t: int, stored: pa.Table, share: Share) -> Iterator[tuple[str, _Wanted]]:
    """What round t needs of the student that is not stored, of one share.

    Which share a text is in does not depend on what is stored: others are storing theirs.
    """
    place = 0
    for part in _parts(_wanted(training, t), AT_ONCE):
        known = _rows_of(stored, part)
        for key, one in part.items():
            if share.has(place) and key not in known:
                yield key, one
            place += 1


def _parts(texts: Iterator[tuple[str, _Wanted]], size: int) -> Iterator[dict[str, _Wanted]]:
    """So many at a time: there may be millions, each with its question."""
    while part := dict(islice(texts, size)):
        yield part


def _kinds(spec: TrainingSpec, t: int) -> list[tuple[int, NegativesConfig | OwnSamplesConfig]]:
    """The kinds of texts that round t needs: the round whose student writes them, and how it is sampled."""
    kinds = ((_negatives_before(spec, t), spec.config.negatives), (spec.own_before(t), spec.config.own))
    return [(before, sampling) for before, sampling in kinds if before is not None]


def _negatives_before(spec: TrainingSpec, t: int) -> int | None:
    return spec.config.negatives.round_before(t) if spec.config.method.uses_negatives else None


def _wanted(training: Training, t: int) -> Iterator[tuple[str, _Wanted]]:
    """sample_id -> what round t needs of the student."""
    spec = training.spec
    negatives, own = spec.config.negatives, spec.config.own
    before, own_before = _negatives_before(spec, t), spec.own_before(t)
    seed = spec.config.optimisation.seed
    hot = negatives.model_dump(exclude={"lag", "batch_size", "keep"})
    cooler = own.model_dump(include={"temperature", "top_p", "top_k"})
    for row in chain.from_iterable(training.example_parts(["example_id", "question", "choices", "answer"])):
        example = row["example_id"]
        if before is not None:
            one = _Wanted(row, NEGATIVE, derived_seed("negative", seed, before, example), before, negatives)
            yield _sample_id(spec, one, hot), one
        if own_before is not None:
            for index in range(1, own.samples + 1):
                own_seed = derived_seed("own", seed, own_before, example, index)
                one = _Wanted(row, index, own_seed, own_before, own)
                yield _sample_id(spec, one, cooler | {"index": index}), one


def _sample_id(spec: TrainingSpec, one: _Wanted, request: dict[str, Any]) -> str:
    request = {"example": one.question["example_id"], "student": spec.student_name(one.before), **request}
    return content_id("student", request, spec.config.optimisation.seed)


def _write(
    training: Training,
    student: Student,
    wanted: dict[str, _Wanted],
    finished: int,
    total: int,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Samples texts of one kind and stores them, but for those of questions that are too long for the student."""
    spec, dataset = training.spec, training.dataset
    # Questions that are too long are not trained on, so they need no rationale.
    lengths = question_lengths(student, dataset, [one.question for one in wanted.values()])
    part = [key for key, length in zip(wanted, lengths, strict=True) if length <= student.max_input_tokens]
    if not part:
        return
    finished += len(wanted) - len(part)
    asked = [wanted[key] for key in part]
    sampling, longest = asked[0].sampling, student.max_target_tokens
    if isinstance(sampling, NegativesConfig):
        longest = sampling.max_tokens or longest
    written = generate(
        student,
        [EXPLAIN + dataset.student_input(one.question["question"], tuple(one.question["choices"])) for one in asked],
        max_new_tokens=longest,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seeds=[one.seed for one in asked],
        batch_size=spec.config.negatives.batch_size,
        on_progress=on_progress and (lambda n, _: on_progress(finished + n, total)),
    )
    found = [_row(dataset, spec, key, one, text) for key, one, text in zip(part, asked, written, strict=True)]
    training.store.append(RATIONALES, pa.Table.from_pylist(found, RATIONALES.schema))


def _stored(training: Training, t: int) -> pa.Table:
    """sample_id, finish_reason and answer of what is stored of the students that round t asks."""
    store, spec = training.store, training.spec
    with store.connect() as con:
        return store.execute(
            con,
            "SELECT sample_id, finish_reason, answer "
            f"FROM {store.relation(RATIONALES, {**spec.train.partition, 'source': 'student'})} "
            "WHERE model = $1 AND list_contains($2, round)",
            [spec.name, [before for before, _ in _kinds(spec, t)]],
        )


def _rows_of(stored: pa.Table, wanted: Collection[str]) -> dict[str, dict[str, Any]]:
    """sample_id -> row, of those that are stored, in the order that they are wanted in."""
    ids = pa.array(wanted, pa.string())
    rows = {row["sample_id"]: row for row in stored.filter(pc.is_in(stored["sample_id"], value_set=ids)).to_pylist()}
    return {key: rows[key] for key in wanted if key in rows}


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
