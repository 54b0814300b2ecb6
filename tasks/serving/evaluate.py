"""Evaluates a registered student on labelled questions, asking it the way it is served."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from storage.datasets.definition import LABEL_SETS, Dataset, Example
from storage.errors import NothingToDo
from storage.ids import example_id
from storage.schemas import PREDICTIONS
from storage.store import Store, now
from tasks.questions.stored import store_examples
from tasks.tracking.gate import wilson_interval
from tasks.tracking.registry import load_registered


@dataclass(frozen=True)
class RegisteredEvaluation:
    """A registered student's figures.

    Attributes:
        name, version: which one.
        student: its name in the stored predictions.
        questions: questions with a label.
        accuracy: answered right / questions, by its guess where it abstains, and a refusal is wrong; `low` to `high` is
            its 95 % Wilson interval.
        answered: questions that it answers when it is asked; the others it abstains from, if it was registered so.
        wrong: how many of these answers are wrong.
        coverage, risk: 95 % Wilson intervals of answered / questions and of wrong / answered, 0 to 1 of nothing.
        explanation_accuracy: rationales whose own answer is right / questions; None if it writes none.
        mean_quality: D's score of the rationales; None without a discriminator.
    """

    name: str
    version: str
    student: str
    questions: int
    accuracy: float
    low: float
    high: float
    answered: int
    wrong: int
    coverage: tuple[float, float]
    risk: tuple[float, float]
    explanation_accuracy: float | None
    mean_quality: float | None


def evaluate_registered(
    home: Path, store: Store, dataset: Dataset, split: str, examples: Iterable[Example], name: str, alias: str
) -> RegisteredEvaluation:
    """Lets a registered student answer, and stores its predictions as `NAME/VERSION`.

    Raises:
        NothingToDo: no question has a label.
        UnknownName: there is no such model or alias.
    """
    everything = list(examples)
    labelled = {
        example_id(dataset.name, split, one.question, one.choices): one for one in everything if one.label is not None
    }
    if not labelled:
        raise NothingToDo(f"None of the {len(everything):,} questions has a label to compare an answer with.")
    store_examples(store, dataset, split, everything)
    loaded = load_registered(home, name, alias)
    asked = [{"question": one.question, "choices": list(one.choices) or None} for one in labelled.values()]
    asked = [{key: value for key, value in one.items() if value is not None} for one in asked]
    answers = loaded.predict(asked, guesses=True)
    student = f"{loaded.registered.name}/{loaded.registered.version}"
    time_stored = now()
    rows, explained_right, qualities = [], [], []
    for (key, one), answer in zip(labelled.items(), answers, strict=True):
        extra = json.loads(json.dumps(dict(one.extra)))

        def right(text: str | None, one: Example = one, extra: dict[str, object] = extra) -> bool:
            return text is not None and one.label is not None and dataset.equal(text, one.label, extra)

        rows.append(
            {"example_id": key, "model": student, "split": split, "dataset": dataset.name, "answer": answer["answer"],
             "rationale": answer["rationale"], "correct": right(answer["answer"]), "created_at": time_stored}
        )  # fmt: skip
        if answer["rationale"] is not None and dataset.answer_kind != LABEL_SETS:  # which a rationale does not announce
            explained_right.append(right(dataset.parse(answer["rationale"], one.choices).answer))
        if answer["quality"] is not None:
            qualities.append(float(answer["quality"]))
    with store.lock(f"predictions {dataset.name}/{split}"):
        store.upsert(PREDICTIONS, pa.Table.from_pylist(rows, PREDICTIONS.schema))
    correct = sum(bool(row["correct"]) for row in rows)
    given = [row for row, answer in zip(rows, answers, strict=True) if not answer["abstained"]]
    low, high = wilson_interval(correct, len(rows))
    return RegisteredEvaluation(
        name=loaded.registered.name,
        version=loaded.registered.version,
        student=student,
        questions=len(rows),
        accuracy=correct / len(rows),
        low=low,
        high=high,
        answered=len(given),
        wrong=(wrong := sum(not row["correct"] for row in given)),
        coverage=wilson_interval(len(given), len(rows)),
        risk=wilson_interval(wrong, len(given)) if given else (0.0, 1.0),
        explanation_accuracy=sum(explained_right) / len(rows) if explained_right else None,
        mean_quality=sum(qualities) / len(qualities) if qualities else None,
    )
