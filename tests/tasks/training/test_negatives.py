"""The student's own negatives: of the right round, stored once, of every question, and none that is a positive."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import tasks.training.negatives as negatives_module
from models.folders import MODEL
from models.generation import generate
from models.judge import judge_input
from models.methods import MethodConfig
from models.prefixes import EXPLAIN
from models.seeds import derived_seed
from models.student_loading import load_student
from storage.ids import rationale_hash
from storage.schemas import RATIONALES
from storage.store import now
from storage.votes import vote
from tasks.serving.settings import REFUSAL
from tasks.training.evaluation import evaluate_round
from tasks.training.folder import Training
from tasks.training.negatives import read_own, sample_negatives
from tasks.training.outcomes import NegativesSampled, Prepared
from tasks.training.own_rationales import OwnRationales, own_rationales
from tasks.training.quality import update_quality
from tasks.training.spec import INITIAL, NegativesConfig
from tasks.training.student import train_round, training_examples
from tests.models.tiny_round import kill, start_process
from tests.tasks.training.world import LAB, World, small_world, spec_of, tiny_training


@pytest.fixture
def world(tmp_path: Path) -> World:
    return small_world(tmp_path)


def stored(world: World) -> list[dict[str, Any]]:
    """The student's rows, in order."""
    found: list[dict[str, Any]] = world.store.query(
        "SELECT * FROM rationales WHERE source = 'student' ORDER BY round, example_id"
    ).to_pylist()
    return found


def play(prepared: Prepared, t: int) -> NegativesSampled:
    """A round, with all that comes before its training."""
    sampled = sample_negatives(prepared.folder, t)
    update_quality(prepared.folder, t)
    train_round(prepared.folder, t)
    evaluate_round(prepared.folder, t, "validation")
    return sampled


# ---- which student ----


@given(st.integers(1, 30), st.integers(0, 60))
def test_the_lag_counts_rounds_back_to_the_student_before_training(lag: int, t: int) -> None:
    before = NegativesConfig(lag=lag).round_before(t)
    assert before == (t - lag if t >= lag else INITIAL)
    assert before is not None
    assert before < t, "only what is trained already"


def test_the_papers_lag() -> None:
    config = NegativesConfig()
    assert [config.round_before(t) for t in range(8)] == [-1, -1, -1, -1, -1, 0, 1, 2]
    assert (config.temperature, config.top_p, config.top_k, config.keep) == (1.5, 1.0, 50, "all")
    assert [NegativesConfig(lag="fixed").round_before(t) for t in (0, 9)] == [-1, -1]
    assert [NegativesConfig(lag="none").round_before(t) for t in (0, 9)] == [None, None]


@pytest.mark.parametrize("lag", [0, -1, "never", None])
def test_no_other_lag_is_allowed(lag: Any) -> None:
    with pytest.raises(ValidationError):
        NegativesConfig(lag=lag)


# ---- what is stored ----


def test_every_question_gets_one_of_the_lagged_student(world: World) -> None:
    prepared = world.prepare()
    spec = spec_of(prepared)
    outcomes = [play(prepared, t) for t in range(3)]
    assert [one.round_before for one in outcomes] == [-1, -1, 0]  # lag 2
    assert [(one.samples, one.sampled) for one in outcomes] == [(12, 12), (12, 0), (12, 12)]
    rows = stored(world)
    questions = Training(prepared.folder).examples()["example_id"].to_pylist()
    for before in (-1, 0):
        assert [row["example_id"] for row in rows if row["round"] == before] == questions
    assert len({row["sample_id"] for row in rows}) == len(rows) == 24
    for row in rows:
        assert (row["source"], row["model"], row["split"]) == ("student", spec.name, "train")
        assert (row["temperature"], row["top_p"], row["top_k"], row["sample_index"]) == (1.5, 1.0, 50, 0)
        assert len(row["token_ids"]) == row["completion_tokens"]
        assert row["run_id"] == spec.training_id
        assert row["seed"] == derived_seed("negative", 0, row["round"], row["example_id"])
        assert row["rationale"] == row["text"]
        assert row["rationale_hash"] == rationale_hash(row["text"])
        assert row["completion_tokens"] <= 10
        assert (row["answer"] is None) == (row["parse_error"] is not None)
    for outcome in outcomes:
        own = [row for row in rows if row["round"] == outcome.round_before]
        assert outcome.unfinished == sum(row["finish_reason"] == "length" for row in own)
    # Round 2's are what round 0's student writes, and not what another one does.
    read = {row["example_id"]: row for row in Training(prepared.folder).examples().to_pylist()}
    texts = {}
    for t in (INITIAL, 0, 1):
        student = load_student(Training(prepared.folder).checkpoint(t) / MODEL, spec.config.student)
        written = generate(
            student,
            [EXPLAIN + LAB.student_input(read[row["example_id"]]["question"], ()) for row in rows[12:]],
            max_new_tokens=10,
            temperature=1.5,
            top_k=50,
            seeds=[row["seed"] for row in rows[12:]],
        )
        texts[t] = [one.text for one in written]
    assert [row["text"] for row in rows[12:]] == texts[0]
    assert texts[0] != texts[INITIAL]
    assert texts[0] != texts[1]
    used = own_rationales(world.store, spec, 2, read.values())
    assert used
    assert set.union(*(one.ids() for one in used.values())) <= {row["sample_id"] for row in rows[12:]}


def test_students_have_no_vote(world: World) -> None:
    prepared = world.prepare()
    before = world.store.query("SELECT * FROM votes ORDER BY example_id").to_pylist()
    sample_negatives(prepared.folder, 0)
    assert vote(world.store, LAB, world.rule, "train").unchanged == 12
    assert world.store.query("SELECT * FROM votes ORDER BY example_id").to_pylist() == before


@pytest.mark.parametrize(
    "sections",
    [{"negatives": {"lag": "none"}}, {"method": {"negatives": False}}, {"method": {"name": "dss"}}],
)
def test_who_needs_none_samples_none(world: World, sections: dict[str, Any]) -> None:
    prepared = world.prepare(tiny_training(**sections))
    assert sample_negatives(prepared.folder, 0) == NegativesSampled(round_before=None)
    assert stored(world) == []
    assert own_rationales(world.store, spec_of(prepared), 0, []) == {}


def test_nothing_is_sampled_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = world.prepare()
    first = sample_negatives(prepared.folder, 0)
    rows = stored(world)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("sampled again")

    monkeypatch.setattr(negatives_module, "generate", refuse)
    assert sample_negatives(prepared.folder, 0) == first, "the outcome is known"
    (Training(prepared.folder).round(0) / "negatives.json").unlink()
    assert sample_negatives(prepared.folder, 0).sampled == 0, "so are the rows"
    again = sample_negatives(prepared.folder, 1)
    assert (again.samples, again.sampled, again.round_before) == (12, 0, INITIAL), "and round 1 has the same"
    assert stored(world) == rows


def test_another_seed_or_temperature_is_another_training(world: World) -> None:
    texts = []
    for sections in ({}, {"optimisation": {"seed": 1}}, {"negatives": {"temperature": 0.5}}):
        prepared = world.prepare(tiny_training(**sections))
        sample_negatives(prepared.folder, 0)
        rows = Training(prepared.folder).examples().to_pylist()
        own = own_rationales(world.store, spec_of(prepared), 0, rows)
        texts.append([made["text"] for one in own.values() for made in one.negatives])
    assert len(stored(world)) == 36
    assert texts[0] != texts[1]
    assert texts[0] != texts[2]


# ---- killed ----


def sample_slowly(folder: Path) -> None:
    """Stores part after part, with a rest between them, in which it is killed."""
    torch.set_num_threads(1)
    negatives_module.AT_ONCE = 4
    sample_negatives(folder, 0, lambda done, total: time.sleep(600) if done > 4 else None)  # noqa: ARG005


def test_a_killed_sampling_goes_on(world: World) -> None:
    prepared = world.prepare()
    process = start_process(sample_slowly, prepared.folder)
    while not stored(world):
        assert process.is_alive()
        time.sleep(0.02)
    assert kill(process)
    kept = stored(world)
    assert len(kept) == 4
    outcome = sample_negatives(prepared.folder, 0)
    assert (outcome.samples, outcome.sampled) == (12, 8)
    rows = stored(world)
    assert [row for row in rows if row["sample_id"] in {one["sample_id"] for one in kept}] == kept
    # They are what an undisturbed one has sampled, for they have seeds of their own.
    other = small_world(world.root / "undisturbed")
    undisturbed = other.prepare()
    assert undisturbed.training_id == prepared.training_id
    sample_negatives(undisturbed.folder, 0)
    assert [(row["sample_id"], row["text"]) for row in rows] == [
        (row["sample_id"], row["text"]) for row in stored(other)
    ]


def test_progress_counts_what_is_missing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negatives_module, "AT_ONCE", 5)
    told: list[tuple[int, int]] = []
    sample_negatives(world.prepare(tiny_training(negatives={"batch_size": 2})).folder, 0, lambda *one: told.append(one))
    assert told == [(2, 12), (4, 12), (5, 12), (7, 12), (9, 12), (10, 12), (12, 12)]


# ---- what counts as one ----


def write(
    world: World, prepared: Prepared, text_of: Callable[[dict[str, Any]], str], round_: int = INITIAL, index: int = 0
) -> None:
    """Puts words into the student's mouth, as if it had sampled them."""
    spec = spec_of(prepared)
    rows = [
        {"sample_id": f"own{number}-{index}", "example_id": row["example_id"], "dataset": "lab", "split": "train",
         "source": "student", "model": spec.name, "round": round_, "sample_index": index, "text": text_of(row),
         "rationale": text_of(row), "rationale_hash": rationale_hash(text_of(row)),
         "answer": LAB.parse(text_of(row), ()).answer, "created_at": now()}
        for number, row in enumerate(Training(prepared.folder).examples().to_pylist())
    ]  # fmt: skip
    world.store.append(RATIONALES, pa.Table.from_pylist(rows, RATIONALES.schema))


def negatives_trained_on(world: World, prepared: Prepared) -> list[int]:
    """How many negatives each example has."""
    spec = spec_of(prepared)
    student = load_student(Training(prepared.folder).checkpoint(INITIAL) / MODEL, spec.config.student)
    rows = Training(prepared.folder).examples().to_pylist()
    own = own_rationales(world.store, spec, 0, rows)
    examples, _ = training_examples(spec, LAB, student, rows, own, None)
    return [len(example.negatives) for example in examples]


@pytest.mark.parametrize(
    ("text_of", "count"),
    [
        (lambda row: f"{row['question']}!", 2),  # the minority's and its own
        (lambda row: f"  {row['positives'][0]['text']}\n", 1),  # repeats a positive
        (lambda row: row["positives"][1]["text"], 1),
        (lambda row: row["negatives"][0]["text"], 1),  # repeats the negative that is there: one target
        (lambda _: " \n", 1),  # nothing at all
    ],
)
def test_a_text_that_repeats_another_is_no_negative_of_its_own(
    world: World, text_of: Callable[[dict[str, Any]], str], count: int
) -> None:
    prepared = world.prepare()
    write(world, prepared, text_of)
    assert negatives_trained_on(world, prepared) == [count] * 12


@pytest.mark.parametrize(("keep", "count"), [("all", 2), ("wrong", 1)])
def test_right_texts_are_left_out_where_only_wrong_ones_are_kept(world: World, keep: str, count: int) -> None:
    prepared = world.prepare(tiny_training(negatives={"keep": keep}))
    write(world, prepared, lambda row: f"I guess it is {row['answer']}.")
    assert negatives_trained_on(world, prepared) == [count] * 12


# ---- own samples ----


@pytest.mark.parametrize(
    ("own", "positives", "negatives"),
    [
        ({}, 1, 1),
        ({"use": "right"}, 1, 0),
        ({"use": "wrong"}, 0, 1),
        ({"least_right": 0.24}, 1, 1),
        ({"least_right": 0.26}, 0, 0),  # one of four is right
        ({"check_arithmetic": True}, 1, 1),
    ],
)
def test_own_samples_are_what_their_answers_say(
    world: World, own: dict[str, Any], positives: int, negatives: int
) -> None:
    own = {"samples": 4, "least_right": 0.2, **own}
    prepared = world.prepare(tiny_training(own=own, negatives={"lag": "none"}))
    texts = ["I guess it is {right}.", "I guess it is 1{right}.", "I guess it is 1{right}.", "Who knows?"]
    for index, text in enumerate(texts, start=1):
        write(world, prepared, lambda row, text=text: text.format(right=row["answer"]), 0, index)  # type: ignore[misc]
    rows = Training(prepared.folder).examples().to_pylist()
    assert own_rationales(world.store, spec_of(prepared), 0, rows) == {}, "the first round has none"
    found = own_rationales(world.store, spec_of(prepared), 1, rows)
    assert len(found) == (12 if positives or negatives else 0)
    for row in rows:
        made = found.get(row["example_id"], OwnRationales())
        assert [one["text"] for one in made.positives] == [texts[0].format(right=row["answer"])] * positives
        assert [one["text"] for one in made.negatives] == [texts[1].format(right=row["answer"])] * negatives


TAUGHT_TO_REFUSE: dict[str, Any] = {"method": {"abstain_below": 0.5}, "rounds": {"answer_tokens": 40}}


def test_where_the_student_should_abstain_its_own_samples_are_neither_right_nor_wrong(world: World) -> None:
    prepared = world.prepare(
        tiny_training(own={"samples": 2, "least_right": 0.5}, negatives={"lag": "none"}, **TAUGHT_TO_REFUSE)
    )
    for index, text in enumerate(("I guess it is {right}.", "I guess it is 1{right}."), start=1):
        write(world, prepared, lambda row, text=text: text.format(right=row["answer"]), 0, index)  # type: ignore[misc]
    rows = Training(prepared.folder).examples().to_pylist()
    for row in rows[:6]:
        row["answer"] = REFUSAL
    # Half of the samples that can be judged are right, which is enough, and a quarter of all.
    found = own_rationales(world.store, spec_of(prepared), 1, rows)
    assert set(found) == {row["example_id"] for row in rows[6:]}


@pytest.mark.parametrize(
    ("keep", "taught", "kept"), [("all", TAUGHT_TO_REFUSE, 2), ("wrong", TAUGHT_TO_REFUSE, 1), ("wrong", {}, 2)]
)
def test_what_nobody_knows_is_not_pushed_away_as_wrong(
    world: World, keep: str, taught: dict[str, Any], kept: int
) -> None:
    """Without `method.abstain_below` the same words are an answer like any other."""
    prepared = world.prepare(tiny_training(negatives={"lag": 1, "keep": keep}, **taught))
    write(world, prepared, lambda _: "It is 1000.", 0)
    rows = Training(prepared.folder).examples().to_pylist()[:2]
    rows[0]["answer"] = REFUSAL
    assert len(own_rationales(world.store, spec_of(prepared), 1, rows)) == kept


def test_own_samples_with_wrong_arithmetic_are_no_positives(world: World) -> None:
    own = {"samples": 2, "least_right": 0, "check_arithmetic": True}
    prepared = world.prepare(tiny_training(own=own, negatives={"lag": "none"}))
    write(world, prepared, lambda row: f"1 + 1 = 3. So it is {row['answer']}.", 0, 1)
    write(world, prepared, lambda row: f"1 + 1 = 2. So it is {row['answer']}.", 0, 2)
    rows = Training(prepared.folder).examples().to_pylist()
    found = own_rationales(world.store, spec_of(prepared), 1, rows)
    assert {made["text"][:10] for one in found.values() for made in one.positives} == {"1 + 1 = 2."}
    assert not any(one.negatives for one in found.values())


def test_a_round_samples_and_takes_both_kinds(world: World) -> None:
    prepared = world.prepare(tiny_training(own={"samples": 3, "least_right": 0}))
    spec, training = spec_of(prepared), Training(prepared.folder)
    outcomes = [play(prepared, t) for t in range(2)]
    assert [(one.samples, one.own_before, one.own_samples, one.sampled) for one in outcomes] == [
        (12, None, 0, 12),
        (12, 0, 36, 36),
    ]
    own = [row for row in stored(world) if row["sample_index"] > 0]
    assert len({(row["example_id"], row["sample_index"]) for row in own}) == 36
    assert {(row["round"], row["temperature"], row["top_k"]) for row in own} == {(0, 0.9, None)}
    right = {row["example_id"]: row["answer"] for row in training.examples().to_pylist()}
    assert outcomes[1].own_right == sum(row["answer"] == right[row["example_id"]] for row in own)
    (training.round(1) / "negatives.json").unlink()
    assert sample_negatives(prepared.folder, 1).sampled == 0
    assert spec.training_id != spec_of(world.prepare()).training_id


def test_who_makes_no_own_samples_is_the_training_it_was(world: World) -> None:
    without = world.prepare(tiny_training(own={"samples": 0, "temperature": 0.3}))
    assert without.training_id == world.prepare().training_id
    baseline = {"method": {"name": "dss"}}
    assert world.prepare(tiny_training(**baseline, own={"samples": 4})).training_id == (
        world.prepare(tiny_training(**baseline)).training_id
    )


@pytest.mark.parametrize("side", ["positives", "negatives"])
def test_the_discriminator_learns_a_text_that_repeats_another_once(world: World, side: str) -> None:
    prepared = world.prepare()
    write(world, prepared, lambda row: row[side][0]["text"])
    outcome = update_quality(prepared.folder, 0)
    scored = world.store.query("SELECT sample_id FROM scores")["sample_id"].to_pylist()
    assert sorted(scored) == [f"s{number:03d}" for number in range(1, 37)]
    assert outcome.student_score is None


def test_questions_that_are_too_long_are_not_sampled(world: World) -> None:
    world.ask("Ann has " + "1 and " * 200 + "nuts. How many?", "200")
    for architecture in ("t5", "llama"):
        student = {"new": {"architecture": architecture, "hidden": 16, "layers": 1, "heads": 2, "intermediate": 24,
                           "vocab_size": 320}}  # fmt: skip
        config = tiny_training(student=student, method={"discriminator": False})
        prepared = world.prepare(config)
        assert prepared.too_long.questions == 1
        outcome = sample_negatives(prepared.folder, 0)
        assert (outcome.samples, outcome.sampled) == (12, 12)


def test_a_killed_process_is_really_gone() -> None:
    """What the tests above rely on."""
    process = start_process(time.sleep, 600)
    assert process.pid is not None
    assert kill(process)
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


# ---- one text that begins with the answer ----

FIRST = {"targets": "answer-first", "discriminator": False}


@pytest.mark.parametrize(
    ("text", "rationale", "answer", "error"),
    [
        ("7 | 3 + 4 = 7.", "3 + 4 = 7.", "7", None),
        ("8 | 3 + 4 = 7.", "3 + 4 = 7.", None, "two answers"),
        ("7 | Count them.", "Count them.", "7", None),  # a rationale need not come to an answer
        ("What? | 3 + 4 = 7.", "3 + 4 = 7.", None, "no answer found"),
        ("7", "", "7", None),
    ],
)
def test_an_own_text_with_two_parts_counts_where_they_agree(
    text: str, rationale: str, answer: str | None, error: str | None
) -> None:
    read = read_own(LAB, MethodConfig(name="qcrd", targets="answer-first"), text, ())
    assert (read.rationale, read.answer, read.parse_error) == (rationale, answer, error)
    apart = read_own(LAB, MethodConfig(name="qcrd"), text, ())
    assert apart.rationale == text


def test_where_the_answer_comes_first_bad_rationales_follow_the_right_one(world: World) -> None:
    method = FIRST | {"wrong_weight": 1.0, "judge_weight": 1.0}
    prepared = world.prepare(tiny_training(method=method, negatives={"lag": "none"}))
    spec = spec_of(prepared)
    student = load_student(Training(prepared.folder).checkpoint(INITIAL) / MODEL, spec.config.student)
    rows = Training(prepared.folder).examples().to_pylist()
    examples, _ = training_examples(spec, LAB, student, rows, {}, None)
    assert len(examples) == 12
    for row, example in zip(rows, examples, strict=True):
        for side, told in (("positives", example.positives), ("negatives", example.negatives)):
            wanted = [f"{row['answer']} | {item['text']}" for item in row[side]]
            assert [list(one.ids) for one in told] == student.target_ids(wanted)
            assert told
        # As data, and before a judge, a rationale stands alone: so it is judged when the student is served.
        wrong, judged = example.tasks
        assert list(wrong.target_ids) in student.target_ids([item["text"] for item in row["negatives"]])
        question = LAB.student_input(row["question"], tuple(row["choices"]))
        both = [item["text"] for item in (*row["positives"], *row["negatives"])]
        assert list(judged.input_ids) in student.input_ids([judge_input(question, text) for text in both])


def test_own_texts_with_the_answer_first_are_trained_on_as_written(world: World) -> None:
    own = {"samples": 2, "least_right": 0}
    prepared = world.prepare(tiny_training(method=FIRST, own=own, negatives={"lag": 1}))
    spec = spec_of(prepared)
    for t in range(2):
        play(prepared, t)
    rows = [row for row in stored(world) if row["round"] == 0]
    assert {row["sample_index"] for row in rows} == {0, 1, 2}
    for row in rows:
        assert row["rationale"] == read_own(LAB, spec.config.method, row["text"], ()).rationale
