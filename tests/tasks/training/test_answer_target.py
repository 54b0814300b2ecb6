"""A dataset whose students write something else than the label: SVAMP's equation, judged by the number it comes to."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

import tasks.serving.answering as answering_module
from models.errors import BadStudent
from models.folders import MODEL
from models.generation import Generated
from models.methods import MethodConfig
from models.student_loading import load_student
from storage.datasets.definition import Example
from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo
from storage.ids import content_id, example_id, rationale_hash
from storage.schemas import RATIONALES
from storage.store import Store, now
from storage.votes import VoteRule, vote
from tasks.questions.sets import DatasetConfig
from tasks.questions.stored import store_examples
from tasks.serving.answering import ask, read_answer
from tasks.serving.settings import AskingConfig, Question
from tasks.training.evaluation import evaluate_round
from tasks.training.folder import Training
from tasks.training.outcomes import Prepared
from tasks.training.own_rationales import own_rationales
from tasks.training.prepare import prepare_training
from tasks.training.spec import INITIAL, Parts, TrainingConfig
from tasks.training.student import training_examples
from tests.tasks.training.world import tiny_training

SVAMP, EQUATION = get_dataset("svamp"), get_dataset("svamp-equation")
RULE = VoteRule(dataset="svamp")
QUESTIONS = [
    Example("Ann has 7 nuts and gets 2. How many?", (), "9", {"equation": "( 7.0 + 2.0 )"}),
    Example("Ben has 8 nuts and eats 3. How many?", (), "5", {"equation": "( 8.0 - 3.0 )"}),
    Example("Cem shares 6 nuts among 3. How many each?", (), "2", {"equation": "( 6.0 / 3.0 )"}),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """SVAMP's questions with a right and a wrong sample each, as any run of `svamp` stores them."""
    torch.set_num_threads(1)
    store = Store(tmp_path / "store")
    for split in ("train", "validation"):
        store_examples(store, SVAMP, split, QUESTIONS)
    sample(store, "teacher", "teacher", ["It makes {right}.", "It makes {right} then.", "It makes 1{right}."])
    vote(store, SVAMP, RULE, "train")
    return store


def sample(store: Store, source: str, model: str, texts: list[str], first: int = 0) -> None:
    rows = []
    for one in QUESTIONS:
        for index, text in enumerate((text.format(right=one.label) for text in texts), start=first):
            key = example_id("svamp", "train", one.question, ())
            rows.append(
                {"sample_id": content_id(key, model, index), "example_id": key, "dataset": "svamp", "split": "train",
                 "source": source, "model": model, "round": 0, "sample_index": index, "text": text, "rationale": text,
                 "rationale_hash": rationale_hash(text), "answer": SVAMP.parse(text, ()).answer, "created_at": now()}
            )  # fmt: skip
    store.append(RATIONALES, pa.Table.from_pylist(rows, RATIONALES.schema))


def prepared(store: Store, dataset: str = "svamp-equation", config: TrainingConfig | None = None) -> Prepared:
    config = config or tiny_training(rounds={"answer_tokens": 40})
    parts = Parts.of(DatasetConfig(name=dataset, test_split=None), get_dataset(dataset).name)
    root = Path(store.files.given).parent
    found = prepare_training(root / "trainings", store, dataset, RULE, parts, config)
    with Training(found.folder).held(found.spec):
        return found


def test_it_is_the_same_stored_dataset() -> None:
    assert EQUATION.name == SVAMP.name == "svamp"
    assert (EQUATION.target, SVAMP.target) == ("equation", None)
    question = QUESTIONS[0].question
    assert EQUATION.teacher_prompt(question, ()) == SVAMP.teacher_prompt(question, ())
    assert EQUATION.parse("So the answer is 9.", ()) == SVAMP.parse("So the answer is 9.", ())


def test_the_student_learns_the_equation_and_the_teacher_still_votes_over_numbers(store: Store) -> None:
    made = prepared(store)
    training = Training(made.folder)
    rows = training.examples().to_pylist()
    assert {row["answer"] for row in rows} == {one.extra["equation"] for one in QUESTIONS}
    assert {len(row["positives"]) for row in rows} == {2}
    winners = store.query("SELECT winner FROM votes ORDER BY winner")["winner"].to_pylist()
    assert winners == ["2", "5", "9"]
    student = load_student(training.checkpoint(INITIAL) / MODEL, made.spec.config.student)
    examples, _ = training_examples(made.spec, training.dataset, student, rows, {}, None)
    written = [student.tokenizer.decode(example.answer_ids, skip_special_tokens=True) for example in examples]
    assert sorted(written) == sorted(one.extra["equation"] for one in QUESTIONS)


def test_svamp_itself_trains_the_number_and_is_another_training(store: Store) -> None:
    numbers, equations = prepared(store, "svamp"), prepared(store)
    assert {row["answer"] for row in Training(numbers.folder).examples().to_pylist()} == {"9", "5", "2"}
    assert numbers.training_id != equations.training_id
    assert numbers.name != equations.name


def test_predictions_are_judged_by_what_they_come_to(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        QUESTIONS[0].question: "2 + 7",  # another equation, the same number
        QUESTIONS[1].question: "( 3.0 - 8.0 )",
        QUESTIONS[2].question: "( 2.0 / 0.0 )",  # begins with the right number, comes to none
    }
    monkeypatch.setattr(answering_module, "generate", writing(said))
    found = evaluate_round(prepared(store).folder, INITIAL, "validation")
    assert (found.questions, found.answered, found.correct) == (3, 2, 1)
    rows = store.query("SELECT answer, correct FROM predictions ORDER BY answer NULLS LAST").to_pylist()
    assert [(row["answer"], row["correct"]) for row in rows] == [("-5", False), ("9", True), (None, False)]


def writing(said: dict[str, str]) -> Any:
    """A student that says this to each question, whatever the prefix."""

    def generate(_: Any, texts: list[str], **__: Any) -> list[Generated]:
        return [Generated(said[text.partition(": ")[2]], (), "stop") for text in texts]

    return generate


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("( 7.0 + 2.0 )", "9"),
        ("( 2.0 + 7.0 )", "9"),
        (" ( ( 4.0 * 5.0 ) - 11.0 ).", "9"),
        ("9", "9"),  # a number comes to itself
        ("( 1.0 / 3.0 )", "0.333333"),
        ("( 7.0 / 0.0 )", None),
        ("( 7.0 / ( 2.0 - 2.0 ) )", None),
        ("( 7.0 + 2.0", None),
        ("9 nuts", None),
        ("9**9**9", None),
        ("__import__('os')", None),
        ("", None),
    ],
)
def test_an_answer_is_an_equation_or_none(text: str, answer: str | None) -> None:
    assert read_answer(EQUATION, text, ()) == answer


def test_an_answer_after_its_rationale_is_read_as_strictly(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """single-task writes both in one text."""
    made = prepared(store, config=tiny_training(method={"name": "single-task"}))
    training = Training(made.folder)
    student = load_student(training.checkpoint(INITIAL) / MODEL, made.spec.config.student)
    said = dict(zip((one.question for one in QUESTIONS), [
        "7 and 2 more. So the answer is ( 7.0 + 2.0 ).", "Of 5 none. So the answer is ( 5.0 / 0.0 ).", "So it is 2.",
    ], strict=True))  # fmt: skip
    monkeypatch.setattr(answering_module, "generate", writing(said))
    asked = [Question(one.question) for one in QUESTIONS]
    found = ask(EQUATION, student, asked, AskingConfig(writes="rationale, then answer"))
    assert [one.answer for one in found] == ["9", None, None]
    assert found[0].rationale == "7 and 2 more."
    examples, _ = training_examples(made.spec, EQUATION, student, training.examples().to_pylist(), {}, None)
    targets = [student.tokenizer.decode(one.positives[0].ids, skip_special_tokens=True) for one in examples]
    assert any(target.endswith(" So the answer is ( 7.0 + 2.0 ).") for target in targets)


def test_own_texts_are_right_where_their_number_is(store: Store) -> None:
    made = prepared(
        store,
        config=tiny_training(
            own={"samples": 2, "least_right": 0}, negatives={"lag": 1, "keep": "wrong"}, rounds={"answer_tokens": 40}
        ),
    )
    name = made.spec.name
    sample(store, "student", name, ["I guess {right}.", "I say {right}.", "I say 1{right}."])  # a hot one, two others
    found = own_rationales(store, made.spec, 1, Training(made.folder).examples().to_pylist())
    assert len(found) == 3
    for own in found.values():
        assert [text["text"][:5] for text in own.positives] == ["I say"]
        assert [text["text"][:7] for text in own.negatives] == ["I say 1"]  # the hot one is right, and left out


# ---- refusals ----


def test_questions_without_an_equation_are_refused(store: Store) -> None:
    store_examples(store, SVAMP, "other", [Example("Dan has 1 nut. How many?", (), "1", {"equation": " "})])
    parts = Parts.of(DatasetConfig(name="svamp-equation", train_split="other", test_split=None), "svamp")
    config = tiny_training(method=MethodConfig(name="finetune").model_dump())
    with pytest.raises(NothingToDo) as caught:
        prepare_training(Path(store.files.given).parent / "trainings", store, "svamp-equation", RULE, parts, config)
    assert str(caught.value) == (
        "None of the 1 training questions of 'svamp', split 'other' has an 'equation', which method finetune trains "
        "the answer on. Name a file with that column (dataset.paths.other=FILE), or take a dataset whose students "
        "write the label."
    )


def test_too_few_tokens_for_an_equation_are_refused(store: Store) -> None:
    with pytest.raises(BadStudent) as caught:
        prepared(store, config=tiny_training(rounds={"answer_tokens": 4}))
    line = str(caught.value)
    assert line.startswith("The student learns to write the equation, up to ")
    longest = int(line.rsplit("rounds.answer_tokens to ", 1)[1].removesuffix(" or more."))
    assert prepared(store, config=tiny_training(rounds={"answer_tokens": longest})).questions == 3
    with pytest.raises(BadStudent):
        prepared(store, config=tiny_training(rounds={"answer_tokens": longest - 1}))
