"""Variants written by an endpoint: stored once, refused where they leak, trained on with the right answers."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from models.methods import MethodConfig
from models.teacher import SamplingConfig
from storage.datasets.registry import get_dataset
from storage.datasets.variants import read_variant, variant_prompt
from storage.schemas import VARIANTS
from storage.votes import VoteRule, vote
from tasks.questions.sets import DatasetConfig, QuestionSet
from tasks.questions.stored import store_examples
from tasks.teacher.planning import TeacherIdentity
from tasks.teacher.session import TeacherChoice
from tasks.teacher.variants import Source, sorted_variants, variants_split, write_variants
from tasks.training.training_set import training_set
from tests.models.endpoint import Endpoint, refusal, serving
from tests.tasks.training.world import LAB, World

HERE = {"dataset": "lab", "split": "train"}
SOURCES = [
    Source(f"e{n}", f"Ann has {n} apples and finds {n + 1} under a tree. How many has she now?", (), str(2 * n + 1))
    for n in range(2, 8)
]
TEST = "Tom reads 5 pages in the morning and 7 in the evening. How many pages does he read a day?"
BOTH: Any = {"rephrased": 1, "changed": 2}


def writing(body: dict[str, Any]) -> web.Response:
    """Writes variants; of some sources it leaks, repeats itself, solves instead, or refuses."""
    asked = body["messages"][-1]["content"]
    n = int(re.findall(r"Ann has (\d+) apples", asked)[-1])
    if "in other words" in asked:
        text = f'"Under a tree Ann, whose apples were {n}, came upon {n + 1} others: what is their number together?"'
    elif n == 3:
        text = TEST.replace("pages a day", "pages in a day").upper()  # a planted leak
    elif n == 4:
        text = "Dora drinks 3 cups of tea and 3 of milk each Sunday. How many cups are that?"
    elif n == 5:
        text = "Dora drinks 3 cups of tea and 3 of milk each Sunday. How many cups is that?"  # nearly the same
    elif n == 6:
        text = "6 + 7 = 13. So the answer is 13."
    elif n == 7:
        return refusal({"error": {"message": "this text was flagged", "code": "content_filter"}})
    else:
        text = f"New question: {SOURCES[1].question}"  # a training question
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 50, "completion_tokens": 20}
    return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})


def choice(endpoint: Endpoint) -> TeacherChoice:
    client = {"model": "lab", "in_flight": 4, "request_timeout_s": 10.0, "retries": 1}
    return TeacherChoice(TeacherIdentity("big"), SamplingConfig(n=3, max_tokens=60), client, (endpoint.url,))


def written(world: World, kinds: Any = BOTH) -> tuple[int, int]:
    """Has variants written; the number of new rows and of requests."""

    async def scenario() -> tuple[int, int]:
        async with serving(habit=writing) as endpoint:
            made = await asyncio.to_thread(
                write_variants, world.store, HERE, SOURCES, kinds, choice(endpoint), 0, world.root, lambda _: None
            )
            return made, len(endpoint.bodies)

    return asyncio.run(scenario())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_variants_are_written_once_and_say_where_they_are_from(world: World) -> None:
    made, asked = written(world)
    assert made == 16, "six rephrased; two changed of each, but of the refused source"
    assert asked >= 18
    rows = world.store.query("SELECT * FROM variants").to_pylist()
    assert {(row["kind"], row["variant_index"]) for row in rows} == {("rephrased", 0), ("changed", 0), ("changed", 1)}
    assert all(row["prompt_hash"] and row["prompt_tokens"] == 50 for row in rows)
    assert {row["question"] is None for row in rows if row["example_id"] == "e6" and row["kind"] == "changed"} == {True}
    again, requests = written(world)
    assert again == 0
    assert requests <= 3, "only what was refused is asked again"
    more, _ = written(world, {"rephrased": 2})
    assert more == 6, "one more of each"
    assert len(world.store.parts(VARIANTS)) >= 2


def test_planted_leaks_and_repetitions_are_refused_and_counted(world: World) -> None:
    written(world)
    args = (world.store, LAB, HERE)
    trained = [source.question for source in SOURCES]
    changed = sorted_variants(*args, "changed", 2, SOURCES, trained, [TEST], 0.7)
    assert changed.refused == {
        "like a validation or test question": 2,
        "a training question already": 2,
        "unreadable": 2,
        "like another variant": 3,
    }
    [kept] = changed.examples.values()
    assert kept.label is None
    assert kept.question.startswith("Dora drinks 3 cups")
    assert kept.extra["variant_of"] in ("e4", "e5")
    assert kept.extra["variant_kind"] == "changed"
    [row] = world.store.query(f"SELECT * FROM variants WHERE variant_id = '{kept.extra['variant_id']}'").to_pylist()
    assert kept.extra["prompt_hash"] == row["prompt_hash"]

    without = sorted_variants(*args, "changed", 2, SOURCES, trained, [], 0.7)
    assert any(one.question == TEST.upper() for one in without.examples.values()), "the leak was real"

    rephrased = sorted_variants(*args, "rephrased", 1, SOURCES[:2], trained, [TEST], 1.0)
    assert {one.label for one in rephrased.examples.values()} == {"5", "7"}, "the sources' own"


def test_students_learn_from_them_after_the_others_and_a_changed_one_by_its_own_vote(world: World) -> None:
    source = world.ask("1 + 1?", "2")
    world.sample(source, ("one and one", "2"))
    split = variants_split("train", "changed")
    for question in ("2 + 2?", "3 + 3?", "4 + 4?"):
        world.ask(question, None, split=split)
    ids = world.store.query("SELECT example_id, question FROM examples WHERE split = $1", [split]).to_pylist()
    by_text = {row["question"]: row["example_id"] for row in ids}
    world.sample(by_text["2 + 2?"], ("a", "4"), ("b", "4"), ("c", "5"), split=split)
    world.sample(by_text["4 + 4?"], ("d", "8"), split=split)
    rule = VoteRule(dataset="lab")
    for name in ("train", split):
        vote(world.store, LAB, rule, name)
    questions = DatasetConfig(name="lab").question_set("lab", "train")
    only = (by_text["2 + 2?"], by_text["3 + 3?"])
    more = QuestionSet(dataset="lab", split=split, only=only)
    file = world.root / "examples.parquet"

    import pyarrow.parquet as pq

    alone = training_set(world.store, questions, rule, MethodConfig(name="dss"), file)
    both = training_set(world.store, questions, rule, MethodConfig(name="dss"), file, further=[more])
    assert (alone.questions, both.questions) == (1, 2), "unsampled ones, and those that are not listed, are left out"
    assert [(row["question"], row["answer"]) for row in pq.read_table(file).to_pylist()] == [
        ("1 + 1?", "2"),
        ("2 + 2?", "4"),
    ]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (" New question: How many?\n", "How many?"),
        ('"How many?"', "How many?"),
        ("```\nHow many?\n```", "How many?"),
        ("", None),
        ("2 + 2 = 4. So the answer is 4.", None),
        ("long " * 200, None),
        ("Premise: a\nHypothesis: b", None),
    ],
)
def test_a_reply_is_read(text: str, read: str | None) -> None:
    assert read_variant(text, "Why?") == read


def test_a_form_is_kept_and_choices_are_shown() -> None:
    source = "Premise: A dog runs.\nHypothesis: It sleeps."
    assert read_variant("Premise: A cat eats.\nHypothesis: It is full.", source) is not None
    assert read_variant("A cat eats. It is full.", source) is None
    prompt = variant_prompt("changed", "Where?", ("lawn", "road"))
    assert "(b) road" in prompt.question
    assert "do not repeat them" in prompt.question
    assert prompt.messages()[0]["role"] == "system"


def test_stored_questions_say_which_variant_they_are(world: World) -> None:
    written(world)
    found = sorted_variants(world.store, LAB, HERE, "rephrased", 1, SOURCES, [], [TEST], 1.0)
    split = variants_split("train", "rephrased")
    assert store_examples(world.store, get_dataset("lab"), split, found.examples.values()).added == 6
    rows = world.store.query("SELECT example_id, extra FROM examples WHERE split = $1", [split]).to_pylist()
    assert {row["example_id"] for row in rows} == set(found.examples)
    assert {json.loads(row["extra"])["variant_of"] for row in rows} == {source.example_id for source in SOURCES}
