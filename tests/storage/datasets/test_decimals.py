"""Numbers with a decimal comma: a setting of a dataset, and how a file's column tells it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from storage.datasets.definition import Dataset
from storage.datasets.file_columns import Column
from storage.datasets.label_columns import decimals_of
from storage.datasets.registry import get_dataset
from storage.errors import BadFile

PRICES = {"name": "preise", "answers": "number", "decimals": "comma", "splits": {"train": "preise.csv"}}


def prices(folder: Path, **changes: Any) -> Dataset:
    path = folder / "preise.yaml"
    path.write_text(yaml.safe_dump(PRICES | changes))
    return get_dataset(str(path))


@pytest.mark.parametrize(
    ("written", "number"),
    [("2.450", "2450"), ("2.450,75", "2450.75"), ("7,5", "7.5"), ("1,250", "1.25"), ("#NV", None)],
)
def test_gold_labels_are_read_with_it(tmp_path: Path, written: str, number: str | None) -> None:
    assert prices(tmp_path).example_from_row({"question": "Was kostet es?", "label": written}).label == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("So the answer is 2.450.", "2450"),
        ("Das macht zusammen 2.450,50 Euro.", "2450.5"),
        (r"\boxed{7,5}", "7.5"),
        ("#### 1.250", "1250"),
        ("5,5 + 2 = 7,5", "7.5"),
    ],
)
def test_a_teachers_texts_are_read_with_it(tmp_path: Path, text: str, number: str) -> None:
    assert prices(tmp_path).parse(text, ()).answer == number
    assert prices(tmp_path, decimals="point").parse("So the answer is 2.450.", ()).answer == "2.45"


def test_what_is_stored_is_spelled_with_a_point_and_stays_as_it_is(tmp_path: Path) -> None:
    dataset = prices(tmp_path, exemplars=[{"question": "Was?", "rationale": "Es sind 2.450.", "answer": "2.450"}])
    label = dataset.example_from_row({"question": "Was kostet es?", "label": "1,234"}).label
    assert label == "1.234"
    assert dataset.normalise(label, ()) == "1.234"


def test_it_is_for_numbers(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="decimals: only for answers: number, not for answers: choice"):
        prices(tmp_path, answers="choice")
    with pytest.raises(BadFile, match=r"decimals is 'coma'; allowed: point, comma\. Did you mean 'comma'\?"):
        prices(tmp_path, decimals="coma")


@pytest.mark.parametrize(
    ("values", "decimals", "doubt"),
    [
        (("12,5", "1.300", "8"), "comma", ""),
        (("1.300.000", "8"), "comma", ""),
        (("12.5", "1,300", "8"), "point", ""),
        (("1300", "8"), "point", ""),
        (("1.300", "8"), "point", "'1.300' in Summe is read in the English way"),
        (("1,5", "2.5"), "point", "Summe holds both '1,5' and '2.5'"),
    ],
)
def test_a_column_tells_it(values: tuple[str, ...], decimals: str, doubt: str) -> None:
    column = Column("Summe")
    for value in values:
        column.add(value)
    found, said = decimals_of(column)
    assert found == decimals
    assert said.startswith(doubt)
    assert bool(said) == bool(doubt)
