"""Training sets against what a person would write down, for every method, from a small store made by hand."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.methods import MethodConfig, MethodName
from storage.errors import NothingToDo
from storage.ids import content_id
from storage.votes import VoteRule
from tasks.questions.sets import QuestionSet
from tasks.serving.settings import REFUSAL
from tasks.training.training_set import TrainingSet, training_set
from tests.tasks.training.world import World

TRAIN = QuestionSet(dataset="lab", split="train")
Rows = dict[str, tuple[str | None, list[str], list[str]]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Four kinds of questions; a rationale's name says what it should be."""
    world = World(tmp_path_factory.mktemp("data"))
    # The majority is right, and says the same twice; one sample is wrong, one says nothing that can be read.
    key = world.ask("plain", "7")
    world.sample(key, ("right a", "7"), ("wrong", "8"), ("right a", "7"), ("right b", "7"), ("unread", None))
    # The majority is wrong; the first sample has an answer but no rationale.
    key = world.ask("misled", "5")
    world.sample(key, ("", "6"), ("misled a", "6"), ("misled b", "6"), ("lonely right", "5"))
    # Nobody knows the label.
    key = world.ask("unlabelled", None)
    world.sample(key, ("guess a", "3"), ("guess b", "3"), ("other", "4"))
    # No teacher was asked, or nothing of it could be read.
    world.ask("unasked", "9")
    key = world.ask("unread", "2")
    world.sample(key, ("gibberish", None))
    world.ask("neither", None)
    # Of another teacher: it has no vote.
    world.sample(key, ("stranger", "2"), model="stranger")
    world.rule = VoteRule(dataset="lab", teachers=("teacher",))
    world.vote()
    return world


def made(world: World, method: MethodConfig, rule: VoteRule | None = None) -> tuple[TrainingSet, pa.Table]:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "examples.parquet"
        return training_set(world.store, TRAIN, rule or world.rule, method, file), pq.read_table(file)


def rows(found: tuple[TrainingSet, pa.Table]) -> Rows:
    """question -> answer, texts of the positives, of the negatives."""
    return {
        row["question"]: (
            row["answer"],
            sorted(item["text"] for item in row["positives"]),
            sorted(item["text"] for item in row["negatives"]),
        )
        for row in found[1].to_pylist()
    }


VOTED: Rows = {
    "plain": ("7", ["right a", "right b"], ["wrong"]),
    "misled": ("5", ["misled a", "misled b"], ["lonely right"]),
    "unlabelled": (None, ["guess a", "guess b"], ["other"]),
    "unasked": ("9", [], []),
    "unread": ("2", [], []),
}
# The first that says anything, whatever it answers.
FIRST: Rows = {
    "plain": ("7", ["right a"], []),
    "misled": ("5", ["misled a"], []),
    "unlabelled": (None, ["guess a"], []),
    "unasked": ("9", [], []),
    "unread": ("2", ["gibberish"], []),
}
GOLD: Rows = {question: (label, [], []) for question, (label, _, _) in VOTED.items() if label is not None}
WINNERS: Rows = {"plain": ("7", [], []), "misled": ("6", [], []), "unlabelled": ("3", [], [])}
BOTH: Rows = {question: row for question, row in FIRST.items() if row[0] is not None and row[1]}


def with_winners(expected: Rows) -> Rows:
    """The same with the teacher's labels."""
    winners = {question: row[0] for question, row in WINNERS.items()}
    found = {question: (winners.get(question), good, bad) for question, (_, good, bad) in expected.items()}
    return {question: row for question, row in found.items() if row[0] is not None or row[1]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("qcrd", VOTED), ("dss", FIRST), ("mi", FIRST), ("single-task", BOTH), ("finetune", GOLD),
     ("label-distill", WINNERS)],
)  # fmt: skip
def test_the_training_set_of_a_method(world: World, name: MethodName, expected: Rows) -> None:
    assert rows(made(world, MethodConfig(name=name))) == expected


@pytest.mark.parametrize(("name", "expected"), [("qcrd", VOTED), ("dss", FIRST), ("label-distill", WINNERS)])
def test_the_teachers_labels(world: World, name: MethodName, expected: Rows) -> None:
    assert rows(made(world, MethodConfig(name=name, labels="teacher"))) == with_winners(expected)


def test_the_teachers_labels_alone(world: World) -> None:
    assert rows(made(world, MethodConfig(name="finetune", labels="teacher"))) == WINNERS


def test_without_voting_there_is_one_positive_and_no_minority(world: World) -> None:
    assert rows(made(world, MethodConfig(voting=False))) == FIRST


def test_switched_off_negatives_and_discriminator_change_no_data(world: World) -> None:
    assert made(world, MethodConfig(negatives=False, discriminator=False)) == made(world, MethodConfig())


@pytest.mark.parametrize(
    ("labels", "below", "refused"),
    [("gold", 0.75, []), ("gold", 0.8, ["misled", "plain"]), ("teacher", 0.6, []), ("teacher", 0.75, ["unlabelled"])],
)
def test_where_the_teacher_is_divided_the_student_learns_to_abstain(
    world: World, labels: Any, below: float, refused: list[str]
) -> None:
    """Of the majorities "plain" and "misled" have three votes of four, "unlabelled", which has no gold answer to give
    up, two of three."""
    usual, (found, table) = (made(world, MethodConfig(labels=labels, abstain_below=one)) for one in (None, below))
    expected = {key: (REFUSAL if key in refused else row[0], *row[1:]) for key, row in rows(usual).items()}
    assert rows((found, table)) == expected, "its rationales stay what they are"
    assert (found.refusals, usual[0].refusals) == (len(refused), 0)
    assert (found.digest == usual[0].digest) == (not refused), "it is another training"


@pytest.mark.parametrize("targets", ["apart", "answer-first"])
def test_a_student_that_would_only_abstain_is_not_trained(world: World, targets: Any) -> None:
    with pytest.raises(NothingToDo, match=r"the 3 with an answer target are all ones .* Lower method.abstain_below"):
        made(world, MethodConfig(labels="teacher", abstain_below=0.9, targets=targets, contrast="none"))


def test_what_is_missing_is_counted(world: World) -> None:
    found, table = made(world, MethodConfig())
    assert found.questions == table.num_rows == 5
    assert (found.positives, found.negatives) == (6, 3)
    counts = (found.without_answer, found.without_positives, found.without_negatives, found.left_out)
    assert counts == (1, 2, 2, 1), "unlabelled; unasked and unread, twice; neither"
    single, _ = made(world, MethodConfig(name="single-task"))
    assert (single.questions, single.left_out) == (3, 3)


def test_a_target_is_the_lowest_of_the_samples_that_say_it(world: World) -> None:
    table = made(world, MethodConfig())[1].to_pylist()
    plain = next(row for row in table if row["question"] == "plain")
    assert [(item["sample_id"], item["text"]) for item in plain["positives"]] == [
        ("s001", "right a"),
        ("s004", "right b"),
    ]
    assert [row["example_id"] for row in table] == sorted(row["example_id"] for row in table)


@pytest.mark.parametrize(("positives", "misled"), [("gold", (["lonely right"], ["misled a", "misled b"])),
                                                   ("majority-and-gold", ([], ["misled a", "misled b"]))])  # fmt: skip
def test_another_rule_makes_other_positives(world: World, positives: Any, misled: tuple[list[str], list[str]]) -> None:
    rule = world.rule.model_copy(update={"positives": positives})
    other = World(world.root, rule)
    other.vote()
    found = rows(made(world, MethodConfig(), rule))
    assert found["misled"] == ("5", *misled)
    assert found["plain"] == VOTED["plain"]
    assert "unlabelled" not in found, "without a label it has no positives, and no answer either"


def test_the_first_of_the_samples_that_vote(world: World) -> None:
    """A rule that takes one sample of each question takes the baseline's from the same draw."""
    chosen = set()
    for seed in range(12):
        rule = world.rule.model_copy(update={"n": 2, "seed": seed})
        World(world.root, rule).vote()
        dss, qcrd = (rows(made(world, MethodConfig(name=name), rule)) for name in ("dss", "qcrd"))
        (text,) = dss["unlabelled"][1]
        voting = {*qcrd["unlabelled"][1], *qcrd["unlabelled"][2]}
        assert text in voting
        assert len(voting) == 2
        chosen.add(text)
    assert chosen == {"guess a", "guess b", "other"}, "another seed, another sample"


def test_the_digest_is_that_of_what_is_trained_on(world: World) -> None:
    whole, table = made(world, MethodConfig())
    text = json.dumps(table.to_pylist(), ensure_ascii=False, sort_keys=True)
    assert whole.digest == content_id("training set", text), "as when all rows were in memory"
    assert made(world, MethodConfig(beta=0.7))[0].digest == whole.digest
    assert made(world, MethodConfig(name="dss"))[0].digest != whole.digest
    assert made(world, MethodConfig(labels="teacher"))[0].digest != whole.digest


@pytest.mark.parametrize("rows_a_group", [1, 2, 3])
def test_row_groups_change_nothing_else(world: World, rows_a_group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(world, MethodConfig())
    monkeypatch.setattr("tasks.training.training_set.PART_ROWS", rows_a_group)
    assert made(world, MethodConfig()) == whole


def test_another_teacher_that_votes_changes_the_set(world: World) -> None:
    rule = world.rule.model_copy(update={"teachers": ("*",)})
    World(world.root, rule).vote()
    assert rows(made(world, MethodConfig(), rule))["unread"] == ("2", ["stranger"], [])
    # The baseline's one sample is of the first teacher's, by index.
    assert rows(made(world, MethodConfig(name="dss"), rule))["unread"] == ("2", ["gibberish"], [])


# ---- nothing to do ----


def test_no_question_at_all_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match=r"No stored questions of 'lab', split 'train'; store some with `qcrd"):
        made(World(tmp_path), MethodConfig())


def test_no_label_at_all_says_what_to_do(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.sample(world.ask("unlabelled", None), ("guess", "3"))
    world.vote()
    with pytest.raises(NothingToDo) as caught:
        made(world, MethodConfig())
    assert str(caught.value) == (
        "None of the 1 training questions of 'lab', split 'train' has a gold label, which method qcrd trains the "
        "answer on. Set method.labels=teacher to train on the teacher's majority answers."
    )
    assert rows(made(world, MethodConfig(labels="teacher"))) == {"unlabelled": ("3", ["guess"], [])}
    # Whoever does not train the answer needs none.
    assert rows(made(world, MethodConfig(label_weight=0))) == {"unlabelled": (None, ["guess"], [])}


def test_no_majority_answer_at_all_says_what_to_do(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.ask("unasked", "3")
    with pytest.raises(
        NothingToDo, match=r"has a majority answer, which .* Sample a teacher first \(`qcrd sample`\)\."
    ):
        made(world, MethodConfig(name="label-distill"))


@pytest.mark.parametrize("name", ["qcrd", "dss", "mi", "single-task"])
def test_no_positive_at_all_says_what_to_do(tmp_path: Path, name: MethodName) -> None:
    world = World(tmp_path)
    world.ask("unasked", "3")
    with pytest.raises(NothingToDo) as caught:
        made(world, MethodConfig(name=name))
    assert str(caught.value) == (
        f"None of the 1 training questions of 'lab', split 'train' has a positive rationale, which method {name} "
        "trains on. Sample a teacher (`qcrd sample`) and vote (`qcrd vote`), or take method.name=finetune, which "
        "needs none."
    )
    assert rows(made(world, MethodConfig(name="finetune"))) == {"unasked": ("3", [], [])}
