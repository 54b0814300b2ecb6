"""Which questions are shown, and with what."""

from pathlib import Path

import pyarrow as pa

from storage.datasets.definition import Example
from storage.datasets.registry import get_dataset
from storage.ids import example_id
from storage.rationales import Source, rationale_row
from storage.schemas import RATIONALES
from storage.store import Store
from tasks.comparing.answers import Told
from tasks.comparing.examples import Shown, disagreements, shown
from tasks.questions.stored import store_examples

LAB = get_dataset("lab")
TRAIN = {"dataset": "lab", "split": "train"}


def test_the_questions_that_divide_most_come_first() -> None:
    right = {
        "one": {"a": True, "b": True, "c": True, "d": False, "only": True},
        "two": {"a": True, "b": False, "c": True, "d": False},
        "three": {"a": True, "b": False, "c": True, "d": True},
        "four": {"a": True, "b": True, "c": False, "d": False},
    }
    told = {name: Told({"answers": answers}) for name, answers in right.items()}
    found = disagreements(told, 10)
    assert found[0] == "b", "two against two"
    assert set(found[1:3]) == {"c", "d"}
    assert found[3] == "a"
    assert disagreements(told, 2) == found[:2]
    assert disagreements({}, 3) == []


def test_a_right_rationale_of_the_teacher_is_shown(tmp_path: Path) -> None:
    store = Store(tmp_path)
    questions = ["right and wrong?", "wrong only?", "none?"]
    store_examples(store, LAB, "train", [Example(question, (), "7") for question in questions])
    keys = [example_id("lab", "train", question, ()) for question in questions]
    samples: list[tuple[str, Source, str]] = [
        (keys[0], "teacher", "I guess. So the answer is 8."),
        (keys[0], "teacher", "3 + 4 = 7. So the answer is 7."),
        (keys[0], "recorded", "So it is. So the answer is 7."),
        (keys[1], "teacher", "I guess. So the answer is 8."),
        (keys[2], "student", "7 = 7. So the answer is 7."),
    ]
    rows = [
        rationale_row(
            source, sample_id=f"s{place}", example_id=key, dataset="lab", split="train", model="m", sample_index=place,
            text=text, parsed=LAB.parse(text, ()),
        )
        for place, (key, source, text) in enumerate(samples)
    ]  # fmt: skip
    store.append(RATIONALES, pa.Table.from_pylist(rows, RATIONALES.schema))
    texts = ("3 + 4 = 7. So the answer is 7.", "I guess. So the answer is 8.", None)
    assert shown(store, TRAIN, list(reversed(keys))) == [
        Shown(key, question, (), "7", text)
        for key, question, text in reversed(list(zip(keys, questions, texts, strict=True)))
    ]
