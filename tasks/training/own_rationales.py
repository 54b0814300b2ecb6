"""Which of the student's own stored rationales a round trains on: hot negatives, and its own samples by their answers.

Both are read in the training set's order beside it, a part at a time, so that neither has to fit into memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

from storage.datasets.arithmetic_steps import miscalculates
from storage.datasets.definition import Dataset
from storage.datasets.registry import get_dataset
from storage.ids import rationale_hash
from storage.schemas import RATIONALES
from storage.store import Store
from storage.vote_sql import NO_RATIONALE
from storage.votes import MEMORY_LIMIT
from tasks.serving.settings import REFUSAL
from tasks.training.spec import TrainingSpec

NEGATIVE = 0
"""`sample_index` of a hot negative; own samples count from 1."""
Row = Mapping[str, Any]
"""As in `tasks.training.training_set.SCHEMA`."""


@dataclass
class OwnRationales:
    """The student's own rationales of one question: sample_id, text, token_ids (null in older samples) and answer of
    each."""

    positives: list[dict[str, Any]] = field(default_factory=list)
    negatives: list[dict[str, Any]] = field(default_factory=list)

    def ids(self) -> set[str]:
        """Their sample ids."""
        return {made["sample_id"] for made in (*self.positives, *self.negatives)}


def own_rationales(store: Store, spec: TrainingSpec, t: int, rows: Iterable[Row]) -> dict[str, OwnRationales]:
    """`own_in_parts` of a training set that is in memory: example_id -> its own rationales."""
    part = sorted(rows, key=lambda row: str(row["example_id"]))
    [(_, found)] = own_in_parts(store, spec, t, lambda: [part])
    return found


def own_in_parts(
    store: Store, spec: TrainingSpec, t: int, parts: Callable[[], Iterable[Sequence[Row]]]
) -> Iterator[tuple[Sequence[Row], dict[str, OwnRationales]]]:
    """The student's rationales that round t trains on, for a part of the training set at a time.

    A text that repeats another of its question is left out: a text counts once. Hot negatives are taken whatever they
    answer, or with `negatives.keep: wrong` unless their answer is the question's answer target. Own samples are
    positives or negatives by their answers, once enough of them are right (`own.least_right`). With
    `own.check_arithmetic` one with the right answer and wrong arithmetic is neither.

    Args:
        t: the round.
        parts: the questions with their teacher's rationales, in the order of their ids; called more than once.

    Yields:
        Each part, and example_id -> its own rationales; only questions that have some.
    """
    config, dataset = spec.config, get_dataset(spec.dataset)
    own = _stored(store, spec, spec.own_before(t) if _enough_right(store, spec, t, parts, dataset) else None, "<>")
    before = config.negatives.round_before(t) if config.method.uses_negatives else None
    hot = _stored(store, spec, before, "=")
    for rows, (samples, negatives) in _of_parts(parts(), own, hot):
        questions = {row["example_id"]: row for row in rows}
        chosen: list[tuple[dict[str, Any], str]] = []
        for made, right in _judged(samples, questions, spec, dataset):
            if config.own.use in ("both", "right" if right else "wrong"):
                chosen.append((made, "positives" if right else "negatives"))
        for made in negatives:
            question = questions[made["example_id"]]
            if config.negatives.keep == "all" or not (
                _nobody_knows(question, spec) or is_right(made, question, dataset)
            ):
                chosen.append((made, "negatives"))
        yield rows, _without_repeats(questions, chosen)


def _nobody_knows(question: Row, spec: TrainingSpec) -> bool:
    """Whether the student is to abstain from the question, so that no text is right or wrong."""
    return spec.config.method.abstain_below is not None and question["answer"] == REFUSAL


def is_right(made: Row, question: Row, dataset: Dataset) -> bool:
    """Whether a sample's answer is its question's answer target."""
    right = dataset.answer_of(question["answer"], tuple(question["choices"]))
    return made["answer"] is not None and made["answer"] == right


def _without_repeats(
    questions: Mapping[str, Row], chosen: Iterable[tuple[dict[str, Any], str]]
) -> dict[str, OwnRationales]:
    """The chosen samples, each with its side, by question; of equal texts the first one, and none of the teacher's."""
    seen: dict[str, set[int]] = {}
    found: dict[str, OwnRationales] = {}
    for made, side in chosen:
        key = made["example_id"]
        if key not in seen:
            teachers = (*questions[key]["positives"], *questions[key]["negatives"])
            seen[key] = {rationale_hash(item["text"]) for item in teachers}
        if made["rationale_hash"] not in seen[key]:
            seen[key].add(made["rationale_hash"])
            getattr(found.setdefault(key, OwnRationales()), side).append(made)
    return found


def _enough_right(
    store: Store, spec: TrainingSpec, t: int, parts: Callable[[], Iterable[Sequence[Row]]], dataset: Dataset
) -> bool:
    """Whether so many of round t's own samples are right that they count."""
    before = spec.own_before(t)
    if before is None:
        return False
    stored = right = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal stored
        for made in _stored(store, spec, before, "<>"):
            stored += 1
            yield made

    for rows, (samples,) in _of_parts(parts(), counted()):
        questions = {row["example_id"]: row for row in rows}
        stored -= sum(_nobody_knows(questions[made["example_id"]], spec) for made in samples)
        right += sum(of_one for _, of_one in _judged(samples, questions, spec, dataset))
    return bool(right) and right >= spec.config.own.least_right * stored


def _judged(
    samples: Iterable[dict[str, Any]], questions: Mapping[str, Row], spec: TrainingSpec, dataset: Dataset
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Own samples that can be judged, each with whether it is right."""
    for made in samples:
        question = questions[made["example_id"]]
        if made["answer"] is None or question["answer"] is None or _nobody_knows(question, spec):
            continue
        right = is_right(made, question, dataset)
        if not (right and spec.config.own.check_arithmetic and miscalculates(made["text"])):
            yield made, right


def _of_parts(
    parts: Iterable[Sequence[Row]], *kinds: Iterator[dict[str, Any]]
) -> Iterator[tuple[Sequence[Row], list[list[dict[str, Any]]]]]:
    """Each part with its questions' samples of each kind. All samples are read; all are in the order of example ids."""
    following = [next(samples, None) for samples in kinds]
    for rows in parts:
        known = {row["example_id"] for row in rows}
        found: list[list[dict[str, Any]]] = [[] for _ in kinds]
        for kind, samples in enumerate(kinds):
            while (made := following[kind]) is not None and rows and made["example_id"] <= rows[-1]["example_id"]:
                if made["example_id"] in known:
                    found[kind].append(made)
                following[kind] = next(samples, None)
        yield rows, found
    for samples in kinds:
        for _ in samples:
            pass


def _stored(store: Store, spec: TrainingSpec, before: int | None, index: str) -> Iterator[dict[str, Any]]:
    """The samples with a rationale of a round's student, in order; none if `before` is None.

    Args:
        index: how `sample_index` compares with NEGATIVE.
    """
    if before is None:
        return
    with (
        TemporaryDirectory(prefix="qcrd-") as folder,
        store.connect(memory_limit=MEMORY_LIMIT, temp_directory=folder) as con,
    ):
        yield from store.stream(
            con,
            "SELECT example_id, sample_id, sample_index, rationale AS text, token_ids, answer, rationale_hash "
            f"FROM {store.relation(RATIONALES, {**spec.train.partition, 'source': 'student'})} "
            f"WHERE model = $1 AND round = $2 AND rationale_hash <> {NO_RATIONALE} "
            f"AND sample_index {index} {NEGATIVE} ORDER BY example_id, sample_id",
            [spec.name, before],
        )
