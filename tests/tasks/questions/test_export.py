"""Exports: the rows of each shape, in JSONL and Parquet alike; whole files or none."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo, StorageError, StoreWriteFailed, UsageError
from storage.schemas import EXAMPLES, RATIONALES, SCORES
from storage.store import Store, now
from storage.voted import Wanted
from storage.votes import VoteRule, vote
from tasks.questions.export import SCHEMAS, Export, ExportSummary, Shape, export_votes
from tasks.teacher.recorded import import_recorded

CQA, SVAMP = get_dataset("cqa"), get_dataset("svamp")
PLACES = {"question": "Where do boats sleep?", "choices": ["harbour", "attic"], "label": "harbour"}
ATTIC = "Attics keep old things dry."
HARBOUR = "Boats are tied up in harbours."
TEXTS = [
    f"{HARBOUR} So the answer is (a).",
    f"{HARBOUR} So the answer is (a).",
    "A harbour has calm water. So the answer is (a).",
    f"{ATTIC} So the answer is (b).",
    "Nobody knows.",
]
UNLABELLED = {
    "question": "Where does hay dry?",
    "choices": ["barn", "sea"],
    "samples": ["Barns are dry. So the answer is (a)."],
}
ASKED = "Where do boats sleep?\nAnswer choices:\n(a) harbour\n(b) attic\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two voted questions, one of them without a label, and a vote on both."""
    store = Store(tmp_path / "store")
    file = tmp_path / "samples.jsonl"
    rows = [{**PLACES, "samples": [{"teacher": "big", "text": text} for text in TEXTS]}, UNLABELLED]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    import_recorded(store, CQA, str(file), "train")
    vote(store, CQA, VoteRule(dataset="cqa"))
    return store


def exported(store: Store, shape: Shape, **more: Any) -> tuple[list[dict[str, Any]], ExportSummary]:
    """The rows, which both formats must hold alike, and the summary."""
    wanted = Wanted(vote_id=VoteRule(dataset="cqa").vote_id)
    folder = Path(store.files.root).parent
    for suffix in ("jsonl", "parquet"):
        summary = export_votes(store, CQA, Export(shape, wanted, **more), folder / f"out.{suffix}")
    lines = (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
    parquet = pq.read_table(folder / "out.parquet")
    texts = {field.name for field in SCHEMAS[shape] if field.type == pa.string()}
    rows = parquet.to_pylist()
    assert [json.loads(line) for line in lines] == [
        {name: "" if value is None and name in texts else value for name, value in row.items()} for row in rows
    ]
    assert parquet.schema.names == [name for name in SCHEMAS[shape].names if name in parquet.schema.names]
    return rows, summary


def score(store: Store, training: str, values: dict[str, float], round_: int = 0) -> None:
    """Scores of the samples with these texts."""
    ids = store.query("SELECT min(sample_id) AS id, rationale FROM rationales GROUP BY rationale").to_pylist()
    rows = [
        {"sample_id": row["id"], "round": round_, "run_id": training, "dataset": "cqa", "split": "train",
         "score": values[row["rationale"]], "created_at": now()}
        for row in ids if row["rationale"] in values
    ]  # fmt: skip
    store.append(SCORES, pa.Table.from_pylist(rows, SCORES.schema))


def test_sft_is_what_a_student_is_asked_and_writes(store: Store) -> None:
    rows, summary = exported(store, "sft")
    of_first = [row for row in rows if row["prompt"].endswith(ASKED)]
    assert {(row["prompt"], row["completion"], row["share"], row["count"]) for row in of_first} == {
        (f"explain: {ASKED}", HARBOUR, 0.75, 2),
        (f"explain: {ASKED}", "A harbour has calm water.", 0.75, 1),
        (f"predict: {ASKED}", "harbour", 0.75, 1),
    }
    assert [row["task"] for row in rows if row not in of_first] == ["explain"]  # no label, so no answer
    assert (summary.rows, summary.questions, summary.left_out) == ({"explain": 3, "predict": 1}, 2, 0)
    rows, summary = exported(store, "sft", labels="teacher")
    assert sorted(row["completion"] for row in rows if row["task"] == "predict") == ["barn", "harbour"]


def test_a_bare_question_has_the_answer_in_the_completion(store: Store) -> None:
    rows, _ = exported(store, "sft", asked="question")
    assert {row["completion"] for row in rows if row["prompt"] == ASKED} == {
        f"{HARBOUR} So the answer is harbour.",
        "A harbour has calm water. So the answer is harbour.",
    }
    rows, _ = exported(store, "preferences", asked="question")
    assert {row["rejected"] for row in rows} == {f"{ATTIC} So the answer is attic."}


def test_preferences_are_each_positive_against_each_negative(store: Store) -> None:
    rows, summary = exported(store, "preferences")
    assert {(row["prompt"], row["chosen"], row["rejected"]) for row in rows} == {
        (f"explain: {ASKED}", HARBOUR, ATTIC),
        (f"explain: {ASKED}", "A harbour has calm water.", ATTIC),
    }
    assert {(row["chosen_share"], row["rejected_share"], row["rejected_answer"]) for row in rows} == {
        (0.75, 0.25, "attic")
    }
    assert sorted(row["chosen_count"] for row in rows) == [1, 2]
    assert "chosen_score" not in rows[0]
    assert (summary.questions, summary.left_out, summary.training) == (1, 1, None)


def test_scores_are_those_of_the_newest_training_s_last_round(store: Store) -> None:
    score(store, "older", {HARBOUR: 0.1, ATTIC: 0.9})
    score(store, "newer", {HARBOUR: 0.2, ATTIC: 0.8})
    score(store, "newer", {HARBOUR: 0.7, ATTIC: 0.3}, round_=1)
    rows, summary = exported(store, "preferences")
    assert {row["chosen"]: (row["chosen_score"], row["rejected_score"]) for row in rows} == {
        HARBOUR: (0.7, 0.3),
        "A harbour has calm water.": (None, 0.3),
    }
    assert (summary.training, summary.round) == ("newer", 1)


def test_rationales_are_every_sample_with_its_vote(store: Store) -> None:
    rows, summary = exported(store, "rationales")
    assert summary.rows == {"positive": 3, "negative": 1, "neither": 2}
    told = {(row["vote"], row["reason"], row["share"], row["correct"]) for row in rows if row["label"]}
    assert told == {
        ("positive", None, 0.75, True),
        ("neither", "same text as a positive", 0.75, True),
        ("negative", None, 0.25, False),
        ("neither", "out: no answer found", None, None),
    }
    [unread] = [row for row in rows if row["answer"] is None]
    assert (unread["text"], unread["parse_error"], unread["winner"]) == ("Nobody knows.", "no answer found", "harbour")
    assert {tuple(row["choices"]) for row in rows} == {("harbour", "attic"), ("barn", "sea")}


def test_the_answer_target_of_a_dataset_with_one_of_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    row = {"question": "Ann has 3 nuts and buys 4. How many?", "label": "7", "equation": "( 3.0 + 4.0 )"}
    (tmp_path / "s.jsonl").write_text(json.dumps({**row, "samples": ["3 + 4 = 7. So the answer is 7."]}) + "\n")
    named = get_dataset("svamp-equation")
    import_recorded(store, named, str(tmp_path / "s.jsonl"), "train")
    vote(store, named, VoteRule(dataset="svamp"))
    wanted = Wanted(vote_id=VoteRule(dataset="svamp").vote_id)
    export_votes(store, named, Export("sft", wanted), tmp_path / "out.parquet")
    answers = [row for row in pq.read_table(tmp_path / "out.parquet").to_pylist() if row["task"] == "predict"]
    assert [(row["completion"], row["share"]) for row in answers] == [("( 3.0 + 4.0 )", 1.0)]
    with pytest.raises(UsageError, match="its students write 'equation' as their answer"):
        export_votes(store, named, Export("sft", wanted, labels="teacher"), tmp_path / "none.parquet")


def many(store: Store, count: int) -> Wanted:
    """Questions in two splits: those of `a` come first by name, those of `b` alone have scores."""
    examples, rationales, scores = [], [], []
    for number in range(count):
        split = "ab"[number % 2]
        own = {"example_id": f"e{number:05}", "dataset": "svamp", "split": split, "created_at": now()}
        examples.append({**own, "question": f"Q{number}?", "choices": [], "label": "1", "extra": "{}"})
        for place, answer in enumerate(("1", "1", "2")):
            sample = f"s{number:05}-{place}"
            rationales.append(
                {**own, "sample_id": sample, "source": "recorded", "model": "m", "sample_index": place,
                 "text": f"{sample}.", "rationale": f"{sample}.", "rationale_hash": 3 * number + place,
                 "answer": answer}
            )  # fmt: skip
            if split == "b":
                scores.append({"sample_id": sample, "round": 0, "run_id": "t", **own, "score": 0.5})
    store.append(EXAMPLES, pa.Table.from_pylist(examples, EXAMPLES.schema))
    store.append(RATIONALES, pa.Table.from_pylist(rationales, RATIONALES.schema))
    store.append(SCORES, pa.Table.from_pylist(scores, SCORES.schema))
    rule = VoteRule(dataset="svamp")
    vote(store, SVAMP, rule)
    return Wanted(vote_id=rule.vote_id)


def test_many_questions_keep_their_order_and_those_with_scores_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.voted.SAMPLES_AT_ONCE", 1000)  # so that there are several passes
    store = Store(tmp_path / "store")
    wanted = many(store, 2001)
    told: list[int] = []
    summary = export_votes(store, SVAMP, Export("preferences", wanted), tmp_path / "out.parquet", told.append)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["split"].to_pylist() == ["b"] * 2000 + ["a"] * 2002
    ids = table["example_id"].to_pylist()
    assert ids[:2000] == sorted(ids[:2000])
    assert ids[2000:] == sorted(ids[2000:])
    for row in table.to_pylist():
        number = row["example_id"].removeprefix("e")
        assert {row["chosen"], row["rejected"]} <= {f"s{number}-{place}." for place in range(3)}
    assert table["chosen_score"].to_pylist() == [0.5] * 2000 + [None] * 2002
    assert told[-1] == summary.questions == 2001
    assert told == sorted(told)


def test_nothing_is_left_of_an_export_that_fails(store: Store, tmp_path: Path) -> None:
    wanted = Wanted(vote_id=VoteRule(dataset="cqa").vote_id)
    before = sorted(tmp_path.iterdir())
    only = store.query("SELECT example_id FROM examples WHERE label IS NULL")["example_id"][0].as_py()
    few = Wanted(vote_id=wanted.vote_id, example=only)
    with pytest.raises(NothingToDo, match="None of 1 questions has both a positive and a negative rationale"):
        export_votes(store, CQA, Export("preferences", few), tmp_path / "out.jsonl")
    with pytest.raises(NothingToDo, match="No question is chosen"):
        export_votes(store, CQA, Export("sft", Wanted(vote_id=wanted.vote_id, split="none")), tmp_path / "out.jsonl")
    with pytest.raises(StoreWriteFailed, match="cannot be written"):
        export_votes(store, CQA, Export("sft", wanted), tmp_path / "samples.jsonl" / "out.jsonl")
    assert sorted(tmp_path.iterdir()) == before
    old = tmp_path / "old.parquet"
    old.write_text("precious")
    [part] = Path(store.files.root).glob("rationales/**/*.parquet")
    data = bytearray(part.read_bytes())
    data[100:400] = b"\x00" * 300  # the footer is sound, the texts are not
    part.write_bytes(data)
    with pytest.raises(StorageError, match="DuckDB: "):
        export_votes(store, CQA, Export("sft", wanted), old)
    assert old.read_text() == "precious"
