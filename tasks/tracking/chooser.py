"""The champion as the one who says which questions its teacher should be asked."""

from collections.abc import Callable, Sequence
from pathlib import Path

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
