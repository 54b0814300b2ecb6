"""What the champion makes of training questions: which ones its teacher should be asked, and which it gets wrong."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.questions.choosing import MOST_READ, Choose, ordered
from tasks.serving.settings import Question
from tasks.tracking.registry import load_registered


def chosen_by_champion(
    home: Path,
    name: str,
    choose: Choose,
    left: Sequence[tuple[str, Question]],
    known: Sequence[Question],
    count: int,
    random_share: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[str], str] | None:
    """The first `count` questions in the order of `choose`. It loads torch, so it is for a worker.

    Args:
        home: the state folder.
        name: the registered model, which has a champion.
        choose: any but random.
        left: ids and questions to choose from, shuffled; the student reads the first MOST_READ.
        known: those that have been asked before.
        random_share: of `mixed`.
        on_progress: called with (texts written, texts in all).

    Returns:
        Their ids, and the version that chose them as NAME/VERSION; None if it cannot tell: `disagree`, and it writes
        no rationales.

    Raises:
        UnknownName, TrackingFailed: from the registry.
    """
    from tasks.questions.signals import signals_of, states_of

    loaded = load_registered(home, name)
    served = loaded.served
    if choose == "disagree" and served.asking.writes == "answer":
        return None
    read = left[:MOST_READ]
    questions = [question for _, question in read]
    signals = signals_of(choose, served.dataset, served.student, questions, served.asking, served.judge, on_progress)
    states = states_of(served.dataset, served.student, known[:MOST_READ]) if signals.states is not None else None
    places = ordered(choose, count, signals, states, random_share)
    ids = [read[place][0] for place in places] + [one for one, _ in left[MOST_READ:]]
    return ids[:count], f"{loaded.registered.name}/{loaded.registered.version}"


def wrong_by_champion(home: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The ids of the questions that the champion answers wrongly, or not at all.

    Args:
        home, name: as above.
        rows: example_id, question, choices, label and extra (JSON) of each; all have a label.
    """
    loaded = load_registered(home, name)
    dataset = loaded.served.dataset
    asked = [{"question": row["question"], "choices": row["choices"]} for row in rows]
    said = loaded.predict(asked, guesses=True)  # an answer that it withholds may be right
    return [
        row["example_id"]
        for row, one in zip(rows, said, strict=True)
        if one["answer"] is None or not dataset.equal(one["answer"], row["label"], json.loads(row["extra"] or "{}"))
    ]
