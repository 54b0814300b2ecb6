"""Datasets made by the reasoning-gym package, judged by its own scorers."""

import json

import pytest

from storage.datasets.definition import Example
from storage.datasets.registry import get_dataset
from storage.errors import UnknownName

# Plain numbers, many right answers, a text with capitals, grids in tuples (which JSON does not keep), binary digits.
NAMES = ["gsm_symbolic", "countdown", "arc_agi", "base_conversion", "caesar_cipher", "n_queens"]


def examples(name: str, split: str = "train", limit: int = 3) -> list[Example]:
    return list(get_dataset(f"reasoning-gym:{name}").load(split, limit=limit))


@pytest.mark.parametrize("name", NAMES)
def test_its_own_answer_is_right_and_nonsense_is_wrong(name: str) -> None:
    dataset = get_dataset(f"reasoning-gym:{name}")
    assert not dataset.compares_strings
    for example in examples(name):
        stored = json.loads(json.dumps(dict(example.extra)))  # as it comes back from the store
        gold = stored["entry"]["answer"]
        assert example.label is not None
        for text in (f"I thought about it. <answer>{gold}</answer>", f"<answer> {gold}\n</answer>."):
            parsed = dataset.parse(text, ())
            assert parsed.answer == dataset.normalise(gold, ()) == example.label
            assert dataset.equal(parsed.answer, example.label, stored)
        assert dataset.equal(gold, "not what is stored", stored)  # the scorer says so, not the string
        assert not dataset.equal("complete nonsense", example.label, stored)


def test_another_right_answer_is_right() -> None:
    dataset = get_dataset("reasoning-gym:countdown")
    example = examples("countdown", limit=1)[0]
    assert example.label is not None
    assert dataset.equal(f"({example.label})", example.label, example.extra)


def test_splits_differ_and_are_repeatable() -> None:
    splits = {split: examples("gsm_symbolic", split, 30) for split in ("train", "validation", "test")}
    questions = [example.question for rows in splits.values() for example in rows]
    assert len(set(questions)) == 90
    assert splits["test"] == examples("gsm_symbolic", "test", 30)
    assert splits["train"][:5] == examples("gsm_symbolic", "train", 5)
    assert examples("gsm_symbolic", limit=0) == []


def test_numbers_are_read_without_tags_too() -> None:
    dataset = get_dataset("reasoning-gym:gsm_symbolic")
    assert dataset.parse("3 + 4 = 7. So the answer is 7.0 apples.", ()).answer == "7"
    assert dataset.normalise("1,200.0", ()) == "1200"
    assert dataset.parse("I do not know.", ()).answer is None


def test_unknown_names() -> None:
    with pytest.raises(
        UnknownName, match=r"Unknown reasoning-gym dataset 'gsm_symbolics'\. Did you mean 'gsm_symbolic'\?"
    ):
        get_dataset("reasoning-gym:gsm_symbolics")
    with pytest.raises(UnknownName, match=r"Unknown split 'dev'\. Allowed: test, train, validation"):
        get_dataset("reasoning-gym:gsm_symbolic").load("dev")
