"""Questions of several fields and long ones: what is left out is said, and counted."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.datasets.custom import load_custom
from storage.datasets.hub import HubSource
from storage.datasets.layout import CUT, first_words
from storage.errors import BadFile
from storage.store import Store
from tasks.questions.stored import store_examples

YAML = """
name: reports
answers: label
labels: [approve, reject]
question: "Title: {title}\\nReport: {report}"
most_words: {report: 5}
"""
FILES = YAML + "splits: {train: reports.csv}\n"


def test_only_the_beginning_of_a_long_field_is_taken_and_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "reports.yaml").write_text(FILES, encoding="utf-8")
    rows = ["title,report,label", "Roof,it  leaks\tbadly in May and June,reject", "Door,it is shut now again,approve"]
    (tmp_path / "reports.csv").write_text("\n".join(rows), encoding="utf-8")
    dataset = load_custom(tmp_path / "reports.yaml")
    long, short = dataset.load("train")
    assert long.question == "Title: Roof\nReport: it  leaks\tbadly in May ..."
    assert short.question == "Title: Door\nReport: it is shut now again"
    assert (long.extra[CUT], CUT in short.extra) == ({"report": 7}, False)
    stored = store_examples(Store(tmp_path / "store"), dataset, "train", [long, short])
    assert stored.notes == [
        "1 of 2 questions hold only the beginning of 'report' (the longest has 7 words): most_words.report says how "
        "much."
    ]


@given(st.text(max_size=60), st.integers(1, 8))
def test_first_words(text: str, most: int) -> None:
    cut, words = first_words(text, most)
    assert words == len(text.split())
    assert cut == text if words <= most else cut.split() == [*text.split()[:most], "..."]
    assert text.startswith(cut.removesuffix(" ..."))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("most_words: {text: 5}", "most_words: 'text' is not in the question; allowed: title, report."),
        ("most_words: {report: 0}", "most_words.report is '0'"),
        ("hub: {repository: nobody}", "hub.repository is 'nobody'; write owner/name"),
        (
            "hub: {repository: o/n, subset: x}",
            "unknown key 'hub.subset' (value 'x'); allowed: repository, configuration.",
        ),
        ("question: '{q'", "write {column}, and {{ for a brace"),
        ("hub: {repository: o/n}\nsplit_column: part", "split_column: only for files"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, more: str, message: str) -> None:
    content = YAML.replace("most_words: {report: 5}\n", "") + "splits: {train: reports.csv}\n" + more
    (tmp_path / "reports.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(BadFile) as error:
        load_custom(tmp_path / "reports.yaml")
    assert message in str(error.value)


def test_a_dataset_of_the_hub_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows come through `HubSource`, which has tests of its own; there is no hub here."""
    asked: list[tuple[HubSource, str]] = []

    def rows(source: HubSource, split: str) -> Any:
        asked.append((source, split))
        return iter([{"title": "Roof", "report": "it leaks", "label": 1}])

    monkeypatch.setattr(HubSource, "rows", rows)
    content = YAML + "hub: {repository: owner/reports-2, configuration: en}\nsplits: {train: train, test: validation}\n"
    (tmp_path / "reports.yaml").write_text(content, encoding="utf-8")
    [example] = load_custom(tmp_path / "reports.yaml").load("test")
    assert (example.question, example.label) == ("Title: Roof\nReport: it leaks", "reject")
    [(source, split)] = asked
    assert (source.repository, source.configuration, source.splits[split].name) == (
        "owner/reports-2", "en", "validation",
    )  # fmt: skip
