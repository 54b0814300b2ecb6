"""Answers that are sets of labels: read, spelled one way, and voted on label by label."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.datasets.custom import load_custom
from storage.datasets.definition import Example
from storage.datasets.label_sets import NO_LABELS, NO_SUCH_LABEL, LabelSetReader
from storage.datasets.parsing import DENIED, NO_ANSWER, SEVERAL_ANSWERS
from storage.datasets.registry import get_dataset
from storage.errors import BadFile
from storage.rationales import rationale_row
from storage.schemas import RATIONALES
from storage.store import Store
from storage.votes import VoteRule, vote
from tasks.questions.stored import store_examples

LABELS = ("billing", "outage", "terms and conditions", "data-loss")
READER = LabelSetReader(LABELS, {"outage": ["down", "offline"]})
YAML = """
name: topics
answers: labels
labels: [billing, outage, terms and conditions, data-loss]
synonyms: {outage: [down, offline]}
question: "{text_of_ticket}"
splits: {train: tickets.jsonl}
exemplars:
  - {question: The shop is down and we were charged., rationale: Two things., answer: "outage, billing"}
"""


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("They were charged and cannot log in. So the answer is billing, outage.", "billing, outage"),
        ("So the answer is outage and billing.", "billing, outage"),
        ("So the answer is both outage and billing.", "billing, outage"),
        ("So the answer is billing.", "billing"),
        ("So the answer is **Outage**; **Data loss**", "data-loss, outage"),
        ("So the answer is terms and conditions and billing.", "billing, terms and conditions"),
        ("So the answer is down, offline.", "outage"),
        ("So the answer is billing, because nothing else is wrong.", "billing"),
        ("It is about no topic of ours. So the answer is none.", NO_LABELS),
        ('{"reason": "charged twice", "labels": ["billing", "outage"]}', "billing, outage"),
        ('{"labels": []}', NO_LABELS),
        ("Labels: billing, outage", "billing, outage"),
        ("#### billing\n", "billing"),
        ("billing, outage", "billing, outage"),
        ("- billing\n- outage", "billing, outage"),
        ("So the answer is:\n- billing\n- outage", "billing, outage"),
        ("Labels:\n1. billing\n2. outage", "billing, outage"),
        ("### Final answer\n- billing\n- outage", "billing, outage"),
    ],
)
def test_what_is_announced_is_read(text: str, answer: str) -> None:
    parsed = READER.parse(text)
    assert (parsed.answer, parsed.parse_error) == (answer, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("So the answer is billing, shipping.", NO_SUCH_LABEL),
        ("So the answer is not billing.", DENIED),
        ("The answer is billing (they were charged twice) and outage (all day).", SEVERAL_ANSWERS),
        ("So the answer is billing: high, outage: high.", SEVERAL_ANSWERS),
        ("It is about billing, and maybe an outage.", NO_ANSWER),
        ("So the answer is billing or outage.", SEVERAL_ANSWERS),
    ],
)
def test_what_is_open_is_no_answer(text: str, reason: str) -> None:
    parsed = READER.parse(text)
    assert (parsed.answer, parsed.parse_error) == (None, reason)


@given(st.lists(st.sampled_from(LABELS)), st.sampled_from([", ", "; ", " | ", "\n", ",\n"]))
def test_a_set_has_one_spelling(names: list[str], between: str) -> None:
    spelled = ", ".join(sorted(set(names))) or NO_LABELS
    assert READER.normalise(between.join(names) or "[]") == spelled
    assert READER.normalise(str(names)) == spelled, "as pandas prints a list into a CSV file"
    assert READER.normalise(spelled) == spelled


@pytest.mark.parametrize("label", ["a, b", "none", "a|b"])
def test_labels_that_cannot_stand_in_a_list(label: str) -> None:
    with pytest.raises(ValueError, match="cannot be one of several"):
        LabelSetReader(["other", label])


def test_of_two_labels_a_vector_and_two_codes_cannot_be_told_apart() -> None:
    two = LabelSetReader(["billing", "outage"])
    assert [two.normalise(text) for text in ("0, 1", "[1, 0]", "1.0,0.0", "1", "billing, outage")] == [
        None, None, None, "outage", "billing, outage",
    ]  # fmt: skip


def test_a_files_labels(tmp_path: Path) -> None:
    (tmp_path / "topics.yaml").write_text(YAML, encoding="utf-8")
    dataset = get_dataset(str(tmp_path / "topics.yaml"))
    rows: tuple[Any, ...] = (
        ["outage", "billing"],
        "outage; billing",
        "['outage', 'billing']",
        [],
        "none",
        None,
        "",
        [None],
    )
    read = [dataset.example_from_row({"text_of_ticket": "t", "label": label}).label for label in rows]
    assert read == ["billing, outage"] * 3 + [NO_LABELS] * 2 + [None] * 3
    with pytest.raises(BadFile, match=r"label 'outage, shipping' must be one of"):
        dataset.example_from_row({"text_of_ticket": "t", "label": ["outage", "shipping"]})
    for vector in ([1, 0, 0, 1], "0,1,0,1"):
        with pytest.raises(BadFile, match="must be one of"):
            dataset.example_from_row({"text_of_ticket": "t", "label": vector})


SETS = st.frozensets(st.sampled_from(LABELS), max_size=3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.none(), SETS), min_size=1, max_size=6), st.one_of(st.none(), SETS))
def test_each_label_is_voted_on(
    tmp_path_factory: pytest.TempPathFactory, answers: list[frozenset[str] | None], gold: frozenset[str] | None
) -> None:
    folder = tmp_path_factory.mktemp("votes")
    (folder / "topics.yaml").write_text(YAML, encoding="utf-8")
    dataset = load_custom(folder / "topics.yaml")
    spelled = [None if one is None else ", ".join(sorted(one)) or NO_LABELS for one in answers]
    label = None if gold is None else ", ".join(sorted(gold)) or NO_LABELS
    store = Store(folder / "store")
    [example] = store_examples(store, dataset, "train", [Example("t", (), label)]).example_ids
    rows: list[dict[str, Any]] = []
    for index, answer in enumerate(spelled):
        parsed = dataset.parse(f"Reason {index}. So the answer is {answer}." if answer else f"Reason {index}.", ())
        assert parsed.answer == answer
        rows.append(
            rationale_row(
                "teacher", sample_id=f"s{index}", example_id=example, dataset="topics", split="train", model="big",
                sample_index=index, text=f"Reason {index}.", parsed=parsed,
            )
        )  # fmt: skip
    store.append(RATIONALES, pa.Table.from_pylist(rows, RATIONALES.schema))
    vote(store, dataset, VoteRule(dataset="topics"))
    [row] = store.query("SELECT * FROM votes").to_pylist()
    voted = [one for one in answers if one is not None]
    count = Counter(name for one in voted for name in one)
    majority = frozenset(name for name, votes in count.items() if 2 * votes > len(voted))
    winner = (", ".join(sorted(majority)) or NO_LABELS) if voted else None
    assert (row["winner"], row["n_parsed"]) == (winner, len(voted))
    assert row["n_votes"] == sum(one == majority for one in voted)
    assert row["tie"] == any(2 * votes == len(voted) for votes in count.values())
    assert [one["sample_id"] for one in row["positives"]] == [
        f"s{i}" for i, one in enumerate(answers) if one == majority and one is not None
    ]
    assert [one["sample_id"] for one in row["negatives"]] == [
        f"s{i}" for i, one in enumerate(answers) if one is not None and one != majority
    ]
    assert row["correct"] == (None if gold is None else winner == label)
