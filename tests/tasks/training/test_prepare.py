"""A training's folder: made once, by what decides its outcome; and what is too long is counted, never cut."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.errors import BadStudent
from models.folders import MODEL
from models.methods import MethodConfig
from models.prefixes import EXPLAIN, PREDICT
from models.student import Student
from models.student_loading import load_student
from storage.datasets.definition import LABEL_SETS
from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo, UsageError
from tasks.questions.sets import DatasetConfig
from tasks.training import prepare
from tasks.training.folder import Training
from tasks.training.initial import measure_lengths, target_text
from tasks.training.outcomes import Prepared, TooLong
from tasks.training.prepare import with_precision
from tasks.training.spec import INITIAL, TrainingConfig
from tasks.training.student import training_examples
from tests.tasks.training.world import LAB, World, small_world, spec_of, tiny_training


@pytest.fixture
def world(tmp_path: Path) -> World:
    return small_world(tmp_path)


def student_of(prepared: Prepared) -> Student:
    return load_student(Training(prepared.folder).round(INITIAL) / MODEL, spec_of(prepared).config.student)


# ---- once, by its content ----


def test_a_training_is_made_once(world: World) -> None:
    first = world.prepare()
    made = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*") if path.suffix != ".lock"}
    assert first == world.prepare()
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*") if path.suffix != ".lock"} == made
    assert (first.questions, first.positives, first.negatives) == (12, 24, 12)
    assert (first.without_answer, first.without_positives, first.without_negatives, first.left_out) == (0, 0, 0, 0)
    assert first.parameters == sum(weight.numel() for weight in student_of(first).parameters())
    assert first.folder == world.root / "trainings" / first.training_id
    assert first.name == f"lab-qcrd-{first.training_id}"
    training = Training(first.folder)
    assert training.spec == first.spec
    assert training.dataset.name == "lab"
    assert training.store.files.given == world.store.files.given


def test_a_dataset_to_which_every_text_is_an_answer_has_no_word_for_not_knowing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes_all = replace(LAB, normalise=lambda answer, _: answer)
    monkeypatch.setattr(prepare, "get_dataset", lambda _: takes_all)
    with pytest.raises(
        UsageError, match=r"'I do not know', which lab takes for an answer like any other\. Leave it out"
    ):
        world.prepare(tiny_training(method={"abstain_below": 0.6}))
    assert world.prepare().refusals == 0


@pytest.mark.parametrize("name", ["cqa", "arc", "aqua", "esnli", "boolq", "svamp", "svamp-equation"])
def test_the_datasets_that_come_with_it_have_one(name: str) -> None:
    prepare._refuse_vain_refusal(get_dataset(name))


def test_sets_of_labels_have_no_share_to_go_by() -> None:
    with pytest.raises(UsageError, match="the labels of lab are voted on one by one"):
        prepare._refuse_vain_refusal(replace(LAB, answer_kind=LABEL_SETS))


def test_the_refusal_must_fit_into_an_answer(world: World) -> None:
    with pytest.raises(BadStudent, match=r"learns to answer 'I do not know', \d+ tokens .* but may write only 4"):
        world.prepare(tiny_training(method={"abstain_below": 0.6}))
    assert world.prepare(tiny_training(method={"abstain_below": 0.6}, rounds={"answer_tokens": 40})).refusals == 0


def test_a_training_is_found_where_its_state_folder_was_moved_to(world: World) -> None:
    first = world.prepare()
    moved = World(world.root.rename(world.root.with_name("moved")))
    again = moved.only_prepare()
    folder, store = moved.root / "trainings" / first.training_id, moved.store.files.given
    assert again == first.model_copy(update={"folder": folder, "spec": first.spec.model_copy(update={"store": store})})
    assert Training(folder).spec.store != store
    with Training(folder).held(again.spec):
        assert Training(folder).spec.store == store


def test_methods_prepared_side_by_side_have_the_students_they_would_have_had_alone(world: World) -> None:
    # Large enough that their weights would be drawn at the same time.
    larger = {"new": {"hidden": 256, "layers": 4, "heads": 2, "intermediate": 512, "vocab_size": 320}}
    trainings = [tiny_training(student=larger, method={"name": name}) for name in ("qcrd", "dss", "mi", "single-task")]

    def weights(prepared: Prepared) -> bytes:
        return b"".join(value.numpy().tobytes() for value in student_of(prepared).state_dict().values())

    with ThreadPoolExecutor(4) as threads:
        together = [weights(prepared) for prepared in list(threads.map(world.prepare, trainings))]
    shutil.rmtree(world.root / "trainings")
    assert together == [weights(world.prepare(training)) for training in trainings]


@pytest.mark.parametrize(
    "sections",
    [
        {"optimisation": {"micro_batch_size": 2, "checkpoint_every_s": 60.0, "log_every": 3, "device": "auto"}},
        {"rounds": {"processes": 2, "threads": 2, "keep": 3}},
    ],
)
def test_settings_of_speed_and_safety_make_no_other_training(world: World, sections: dict[str, Any]) -> None:
    first, config = world.prepare(), tiny_training(**sections)
    again = world.only_prepare(config)
    assert again.folder == first.folder
    definite = with_precision(config, lambda _: False)
    assert again.spec.config == definite
    assert Training(first.folder).spec == first.spec, "another run may be training it"
    with Training(first.folder).held(again.spec):
        assert Training(first.folder).spec.config == definite, "but in this run these count"


@pytest.mark.parametrize(
    "sections",
    [
        {"optimisation": {"seed": 1}},
        {"optimisation": {"learning_rate": 1e-4}},
        {"method": {"beta": 0.5}},
        {"negatives": {"lag": 3}},
        {"discriminator": {"loss": "bce"}},
        {"rounds": {"epochs_per_round": 2}},
        {"student": {"dropout": 0.2}},
    ],
)
def test_settings_of_the_outcome_make_another_training(world: World, sections: dict[str, Any]) -> None:
    assert world.prepare(tiny_training(**sections)).training_id != world.prepare().training_id


def in_precision(precision: str) -> TrainingConfig:
    return tiny_training(optimisation={"precision": precision})


@pytest.mark.parametrize("machine", ["float32", "bfloat16"])
def test_auto_is_the_machines_precision_under_the_id_of_that_precision(
    world: World, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    monkeypatch.setattr(prepare, "decided_precision", lambda _: machine)
    auto = world.prepare(in_precision("auto"))
    assert Training(auto.folder).spec.config == in_precision(machine), "every round, on whatever machine, reads this"
    assert world.prepare(in_precision(machine)) == auto
    other = "bfloat16" if machine == "float32" else "float32"
    assert world.prepare(in_precision(other)).training_id != auto.training_id
    assert world.prepare(in_precision("auto")) == auto, "of two that are known, the machine's own"


def test_auto_goes_on_with_what_another_machine_began(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "decided_precision", lambda _: "bfloat16")
    begun = world.prepare(in_precision("auto"))
    monkeypatch.setattr(prepare, "decided_precision", lambda _: "float32")
    assert world.prepare(in_precision("auto")) == begun
    assert Training(begun.folder).spec.config.optimisation.precision == "bfloat16"
    (begun.folder / "training.json").unlink()  # killed while it was prepared: nothing was begun
    assert world.prepare(in_precision("auto")).spec.config.optimisation.precision == "float32"


def test_new_questions_and_samples_make_another_training_but_test_questions_do_not(world: World) -> None:
    found = [world.prepare().training_id]
    world.ask("Ben has 9 new cards for the test. How many?", "9", "test")
    assert world.prepare().training_id == found[0]
    world.ask("Ben has 9 new cards for validation. How many?", "9", "validation")
    found.append(world.prepare().training_id)
    key = world.ask("Ben has 9 new cards. How many?", "9")
    found.append(world.prepare().training_id)
    world.sample(key, ("Nine.", "9"))
    world.vote()
    found.append(world.prepare().training_id)
    assert len(set(found)) == 4


def test_a_student_is_made_from_its_seed(world: World) -> None:
    first = student_of(world.prepare())
    again = student_of(small_world(world.root / "again").prepare())
    assert all(bool((one == other).all()) for one, other in zip(first.parameters(), again.parameters(), strict=True))


def test_no_validation_questions_is_said_before_anything_is_made(world: World) -> None:
    with pytest.raises(NothingToDo, match="No stored questions of 'lab', split 'dev'"):
        world.prepare(dataset=DatasetConfig(name="lab", validation_split="dev"))
    assert not (world.root / "trainings").exists()


# ---- too long ----


@pytest.fixture
def long_world(world: World) -> World:
    """One question, one positive, one negative and one answer that are longer than the rest."""
    world.ask("Ann has " + "1 and " * 60 + "nuts. How many?", "60")
    key = world.ask("Eva has 4 cards. How many?", "4")
    world.sample(key, ("She " + "really " * 50 + "has 4.", "4"), ("Four.", "4"), ("Or " + "maybe " * 50 + "5.", "5"))
    world.ask("Tom has many cards. How many?", "1" * 60)
    world.vote()
    return world


def counted(student: Student, world: World, prepared: Prepared, one_target: bool) -> TooLong:
    """What is too long, one text after the other."""
    over: list[tuple[str, str, int]] = []
    rows = Training(prepared.folder).examples().to_pylist()
    for row in rows:
        length = max(len(student.input_ids([prefix + row["question"]])[0]) for prefix in (PREDICT, EXPLAIN))
        over += [("question", row["example_id"], length)] * (length > student.max_input_tokens)
    for row in rows:
        for item in (*row["positives"], *row["negatives"]):
            text = item["text"] + (f" So the answer is {row['answer']}." if one_target else "")
            length = len(student.target_ids([text])[0])
            over += [("rationale", row["example_id"], length)] * (length > student.max_target_tokens)
    for row in rows:
        length = len(student.target_ids([row["answer"]])[0])
        over += [("answer", row["example_id"], length)] * (length > student.max_target_tokens)
    counts = {kind: sum(one == kind for one, _, _ in over) for kind in ("question", "rationale", "answer")}
    assert world.samples == 39
    return TooLong(
        questions=counts["question"],
        rationales=counts["rationale"],
        answers=counts["answer"],
        examples=tuple(dict.fromkeys(key for _, key, _ in over))[:5],
        longest=max((length for _, _, length in over), default=0),
    )


@pytest.mark.parametrize("architecture", ["t5", "llama"])
def test_what_is_too_long_is_counted_and_named(long_world: World, architecture: str) -> None:
    student = {"new": {"architecture": architecture, "hidden": 16, "layers": 1, "heads": 2, "intermediate": 24,
                       "vocab_size": 320}}  # fmt: skip
    prepared = long_world.prepare(tiny_training(student=student, method={"discriminator": False}))
    found = prepared.too_long
    assert (found.questions, found.rationales, found.answers) == (1, 2, 1)
    assert found == counted(student_of(prepared), long_world, prepared, False)
    assert len(found.examples) == 3


def test_a_single_task_target_is_as_long_as_rationale_and_answer(long_world: World) -> None:
    """A rationale that just fits alone may not with its answer."""
    wide = long_world.prepare(tiny_training(method={"name": "single-task"}))
    reader = student_of(wide)
    texts = [row["positives"][0]["text"] for row in Training(wide.folder).examples().to_pylist() if row["positives"]]
    longest = sorted(len(ids) for ids in reader.target_ids(texts))[-2]
    prepared = long_world.prepare(tiny_training(method={"name": "single-task"}, student={"max_target_tokens": longest}))
    assert prepared.too_long == counted(student_of(prepared), long_world, prepared, True)
    plain = measure_lengths(student_of(prepared), LAB, Training(prepared.folder).example_parts(), MethodConfig())
    assert prepared.too_long.rationales > plain.rationales
    assert target_text("Two.", "2", MethodConfig(name="single-task")) == "Two. So the answer is 2."
    assert target_text("Two.", "2", MethodConfig(name="dss")) == "Two."
    assert target_text("Two.", "2", MethodConfig(name="dss", targets="answer-first")) == "2 | Two."


def test_what_is_too_long_is_left_out_and_nothing_is_cut(long_world: World) -> None:
    prepared = long_world.prepare(tiny_training(method={"discriminator": False}))
    spec, student = spec_of(prepared), student_of(prepared)
    rows = Training(prepared.folder).examples().to_pylist()
    examples, left_out = training_examples(spec, LAB, student, rows, {}, None)
    # The long question; two long rationales; a long answer, whose question has nothing else.
    assert left_out == 4
    assert len(examples) == 13
    by_question = {row["question"]: row for row in rows}
    whole = {
        tuple(student.target_ids([text])[0]): text
        for row in rows
        for text in (row["answer"], *(item["text"] for item in (*row["positives"], *row["negatives"])))
    }
    for example in examples:
        question = student.tokenizer.decode(example.explain_ids, skip_special_tokens=True).removeprefix(EXPLAIN)
        row = by_question[question]
        assert example.answer_ids is not None
        assert whole[tuple(example.answer_ids)] == row["answer"]
        texts = [whole[tuple(one.ids)] for one in (*example.positives, *example.negatives)]
        assert set(texts) <= {item["text"] for item in (*row["positives"], *row["negatives"])}
        assert len(texts) == (1 if question.startswith("Eva") else 3)


def test_when_every_question_is_too_long_it_says_so(world: World) -> None:
    with pytest.raises(NothingToDo, match=r"All 12 questions are longer than student\.max_input_tokens \(4\); the lon"):
        world.prepare(tiny_training(student={"max_input_tokens": 4}))
