"""Recorded samples that come in bit by bit, of one kind or another."""

from pathlib import Path

from storage.datasets.registry import get_dataset
from storage.store import Store
from storage.votes import VoteRule, vote
from tasks.teacher.recorded import import_recorded

SAME = "It is {n}. The answer is {n}."
OTHER = "It is one more. The answer is 1{n}."
LONG = "Well, let us see what that might be. Nothing is added. It is {n}. The answer is {n}."


def bring(store: Store, folder: Path, name: str, numbers: range, text: str, wrong: str) -> None:
    """Imports three samples for each of some questions: two of one text, one of another."""
    lines = [
        f'{{"question": "What is {n} + 0?", "label": "{n}", "teacher": "m", "text": "{one.format(n=n)}"}}\n'
        for n in numbers
        for one in (text, text + " ", wrong)
    ]
    file = folder / f"{name}.jsonl"
    file.write_text("".join(lines), encoding="utf-8")
    import_recorded(store, get_dataset("svamp"), str(file), "train")
    vote(store, get_dataset("svamp"), VoteRule(dataset="svamp"), "train")
