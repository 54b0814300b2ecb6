"""What is passed on to the teacher: asked once, stored before it is answered, within a budget."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from models.errors import TeacherFailed
from storage.datasets.definition import Example
from storage.datasets.registry import get_dataset
from storage.errors import StoreWriteFailed, UsageError
from storage.schemas import EXAMPLES, RATIONALES, VOTES
from storage.store import Store
from storage.votes import VoteRule, VotesConfig, vote
from tasks.cascade import desk as desk_module
from tasks.cascade.desk import Desk, OverBudget, Voted
from tasks.cascade.settings import CascadeSettings
from tasks.questions.sets import PASSED_ON
from tasks.questions.stored import store_examples
from tasks.serving.settings import Question
from tasks.teacher.session import choose_teacher, endpoint, teach
from tasks.teacher.settings import TeacherSettings
from tests.models.endpoint import Endpoint, good, openai_error, refusal, says, serving
from tests.storage.test_forgetting import forgotten

LAB = get_dataset("lab")
QUESTIONS = [Question(f"Ann has {number} nuts and gets 2 more. How many nuts has she now?") for number in range(3, 9)]


def says_the_sum(body: dict[str, Any]) -> web.Response:
    """A teacher whose second sample is wrong."""
    number = int(re.findall(r"Ann has (\d+) nuts", body["prompt"])[-1])
    reply = good(body)
    for choice in reply["choices"]:
        total = number + 2 + (choice["index"] == 1)
        choice["text"] = f" {number} + 2 = {total}. So the answer is {total}."
    return web.json_response(reply)


def settings(served: Endpoint, **more: Any) -> TeacherSettings:
    return TeacherSettings(model="lab", name="big", url=served.url, api="completions", n=3, retries=1, **more)


def at_the_desk(
    root: Path,
    scenario: Callable[[Desk, Endpoint], Awaitable[None]],
    *,
    cascade: CascadeSettings | None = None,
    habit: Callable[[dict[str, Any]], web.Response | None] = says_the_sum,
    notices: list[str] | None = None,
    **teacher: Any,
) -> None:
    """Runs a scenario with a desk whose teacher is an endpoint on this machine."""

    async def run() -> None:
        async with serving(habit=habit) as served:
            named = settings(served, **teacher)
            choice = choose_teacher(named, root)
            with endpoint(choice, root, print) as (address, recover):
                told = notices if notices is not None else []
                desk = Desk(Store(root / "store"), LAB, VotesConfig(), cascade or CascadeSettings(), named, choice,
                            address, told.append, recover)  # fmt: skip
                async with desk:
                    await scenario(desk, served)

    asyncio.run(run())


def rows(root: Path, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        Store(root / "store").query(f"SELECT * EXCLUDE (created_at, run_id) FROM {table} ORDER BY ALL").to_pylist()
    )
    return found


@pytest.mark.parametrize("elsewhere", [False, True])
def test_many_small_files_are_copied_together_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """Unless another process rewrites the store just then; the rows are the same."""
    monkeypatch.setattr(desk_module, "COMPACT_EVERY", 2)
    tables, here = (EXAMPLES, RATIONALES, VOTES), {"dataset": "lab", "split": PASSED_ON}

    async def one_by_one(desk: Desk, _: Endpoint) -> None:
        for question in QUESTIONS:
            await desk.pass_on(question)

    def files(root: Path) -> list[int]:
        return [len(Store(root / "store").parts(table, here)) for table in tables]

    with Store(tmp_path / "compacted" / "store").lock("rewrite") if elsewhere else nullcontext():
        at_the_desk(tmp_path / "compacted", one_by_one)
    # Of six groups the last was copied before its own files came.
    assert files(tmp_path / "compacted") == ([6, 6, 6] if elsewhere else [2, 2, 2])
    at_the_desk(tmp_path / "compacted", one_by_one)
    assert files(tmp_path / "compacted") == [1, 1, 1], "the next start, whatever was left"
    monkeypatch.setattr(desk_module, "COMPACT_EVERY", 100)
    at_the_desk(tmp_path / "plain", one_by_one)
    assert files(tmp_path / "plain") == [6, 6, 6]
    for name in ("rationales", "votes"):
        assert rows(tmp_path / "compacted", name) == rows(tmp_path / "plain", name)


def test_files_that_cannot_be_copied_keep_nobody_from_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise StoreWriteFailed("the store is full")

    async def scenario(desk: Desk, _: Endpoint) -> None:
        assert (await desk.pass_on(QUESTIONS[0])).answer == "5"

    monkeypatch.setattr(desk_module, "compact_partition", full)
    told: list[str] = []
    at_the_desk(tmp_path, scenario, notices=told)
    assert told == ["What was passed on could not be copied into fewer files: the store is full."]


@pytest.mark.parametrize("apart_s", [0.0, 0.02])
@pytest.mark.parametrize(("in_flight", "least", "most"), [(1, 1, 1), (3, 2, 3), (16, 8, 16), (None, 2, 24)])
def test_groups_share_the_requests_that_may_be_under_way(
    tmp_path: Path, in_flight: int | None, least: int, most: int, apart_s: float
) -> None:
    """Whether the questions come at once, which makes large groups, or one after the other, which makes many."""

    questions = [Question(f"Ann has {number} nuts and gets 2 more.") for number in range(24)]

    async def scenario(desk: Desk, served: Endpoint) -> None:
        served.script = [slow] * len(questions)

        async def later(place: int, question: Question) -> Voted:
            await asyncio.sleep(apart_s * place)
            return await desk.pass_on(question)

        voted = await asyncio.gather(*(later(place, one) for place, one in enumerate(questions)))
        assert [one.answer for one in voted] == [str(number + 2) for number in range(24)]
        assert least <= served.most_under_way <= most

    at_the_desk(tmp_path, scenario, in_flight=in_flight)


def test_what_a_refusal_teaches_is_learnt_and_told_once(tmp_path: Path) -> None:
    """Each group has a client of its own, but the endpoint is the same."""

    def modern(body: dict[str, Any]) -> web.Response:
        if "max_tokens" in body:
            return refusal(openai_error("'max_tokens' is unsupported; use 'max_completion_tokens'."))
        return says_the_sum(body)

    async def scenario(desk: Desk, served: Endpoint) -> None:
        served.models = ["other"]
        for number, question in enumerate(QUESTIONS, 1):
            assert (await desk.pass_on(question)).answer is not None
            assert len(served.bodies) == number + 1

    told: list[str] = []
    at_the_desk(tmp_path, scenario, habit=modern, notices=told)
    assert [note for note in told if note.startswith("The teacher takes")] == [
        "The teacher takes max_completion_tokens instead of max_tokens."
    ]
    assert len(told) == 2, "and once that the endpoint does not list the model"


def test_its_rows_are_those_of_sample_and_vote(tmp_path: Path) -> None:
    async def scenario(desk: Desk, served: Endpoint) -> None:
        voted = await asyncio.gather(*map(desk.pass_on, [*QUESTIONS, QUESTIONS[0]]))
        assert [one.answer for one in voted] == ["5", "6", "7", "8", "9", "10", "5"]
        assert voted[0] == voted[-1]
        assert voted[0].share == pytest.approx(2 / 3)
        assert voted[0].rationale == "3 + 2 = 5."
        assert len(served.bodies) == len(QUESTIONS)
        assert (await desk.pass_on(QUESTIONS[1])).answer == "6"
        assert len(served.bodies) == len(QUESTIONS)  # it knew that one

    at_the_desk(tmp_path / "served", scenario)

    async def by_hand() -> None:
        async with serving(habit=says_the_sum) as served:
            store, named = Store(tmp_path / "sampled" / "store"), settings(served)
            examples = [Example(one.question, ()) for one in QUESTIONS]
            ids = store_examples(store, LAB, PASSED_ON, examples).example_ids
            choice = choose_teacher(named, tmp_path)
            await asyncio.to_thread(teach, store, LAB, PASSED_ON, ids, choice, named.seed, tmp_path, print)
            vote(store, LAB, VoteRule(dataset="lab", teachers=("big",)), PASSED_ON)

    asyncio.run(by_hand())
    for table in ("rationales", "votes"):
        assert rows(tmp_path / "served", table) == rows(tmp_path / "sampled", table) != []


def test_the_budget_of_questions(tmp_path: Path) -> None:
    async def first(desk: Desk, served: Endpoint) -> None:
        assert desk.left == 4
        outcomes = await asyncio.gather(*map(desk.pass_on, QUESTIONS), return_exceptions=True)
        assert sum(isinstance(one, Voted) for one in outcomes) == len(served.bodies) == 4
        assert {str(one) for one in outcomes if not isinstance(one, Voted)} == {
            "cascade.questions_a_day is 4, and the teacher was asked as many today"
        }
        assert desk.left == 0

    async def after_a_restart(desk: Desk, served: Endpoint) -> None:
        with pytest.raises(OverBudget):
            await desk.pass_on(Question("Ann has 90 nuts and gets 2 more. How many nuts has she now?"))
        assert served.bodies == []

    for scenario in (first, after_a_restart):
        at_the_desk(tmp_path, scenario, cascade=CascadeSettings(questions_a_day=4))
    assert Store(tmp_path / "store").query("SELECT count(*) AS n FROM examples")["n"][0].as_py() == 4


def test_other_settings_ask_again_within_the_budget(tmp_path: Path) -> None:
    async def all_of_them(desk: Desk, _: Endpoint) -> None:
        await asyncio.gather(*map(desk.pass_on, QUESTIONS))

    async def some(desk: Desk, served: Endpoint) -> None:
        assert served.bodies == []  # a start asks only what has no sample at all
        outcomes = await asyncio.gather(*map(desk.pass_on, QUESTIONS), return_exceptions=True)
        assert [isinstance(one, Voted) for one in outcomes].count(True) == len(served.bodies) == 2

    at_the_desk(tmp_path, all_of_them)
    at_the_desk(tmp_path, some, cascade=CascadeSettings(questions_a_day=len(QUESTIONS) + 2), seed=1)


@pytest.mark.parametrize(
    "trouble", [says(500, {"error": "down"}), says(400, openai_error("content policy", "content_filter"))]
)
def test_a_question_without_a_sample_is_not_counted(tmp_path: Path, trouble: Any) -> None:
    """A start would not count it, either; otherwise whoever asks again during an outage would use up the day."""

    async def scenario(desk: Desk, served: Endpoint) -> None:
        served.script = [trouble] * 100  # it is asked again, now and then
        for _ in range(2):
            with pytest.raises(TeacherFailed):
                await desk.pass_on(QUESTIONS[0])
            assert desk.left == 1
        served.script = []
        assert (await desk.pass_on(QUESTIONS[0])).answer == "5"
        assert desk.left == 0
        with pytest.raises(OverBudget):
            await desk.pass_on(QUESTIONS[1])

    at_the_desk(tmp_path, scenario, cascade=CascadeSettings(questions_a_day=1))


async def slow(_: Endpoint, body: dict[str, Any]) -> web.StreamResponse:
    await asyncio.sleep(0.3)
    return says_the_sum(body)


def test_who_is_patient_waits_as_long_as_it_takes(tmp_path: Path) -> None:
    async def scenario(desk: Desk, served: Endpoint) -> None:
        served.script = [slow, slow]
        with pytest.raises(TimeoutError):
            await desk.pass_on(QUESTIONS[0])
        assert (await desk.pass_on(QUESTIONS[1], patient=True)).answer == "6"

    at_the_desk(tmp_path, scenario, cascade=CascadeSettings(wait_s=0.1))


def test_the_first_of_many_need_not_wait_for_the_last(tmp_path: Path) -> None:
    async def scenario(desk: Desk, served: Endpoint) -> None:
        questions = [Question(f"Ann has {number} nuts and gets 2 more.") for number in range(16)]
        waiting = [asyncio.create_task(desk.pass_on(one)) for one in questions]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert len(served.bodies) < len(questions)
        await asyncio.gather(*waiting)

    at_the_desk(tmp_path, scenario, in_flight=1)


def test_the_budget_of_money(tmp_path: Path) -> None:
    async def scenario(desk: Desk, served: Endpoint) -> None:
        await desk.pass_on(QUESTIONS[0])  # 6 completion tokens, as many as it may take
        with pytest.raises(OverBudget, match=r"^cascade\.cost_a_day is 7, and 6\.00 are spent today$"):
            await desk.pass_on(QUESTIONS[1])
        assert len(served.bodies) == 1

    price = {"per_million_completion": 1e6}
    costly: dict[str, Any] = {"cascade": CascadeSettings(cost_a_day=7), "price": price, "max_tokens": 2}
    at_the_desk(tmp_path, scenario, **costly)

    async def after_a_restart(desk: Desk, served: Endpoint) -> None:
        with pytest.raises(OverBudget):
            await desk.pass_on(QUESTIONS[1])
        assert served.bodies == []

    at_the_desk(tmp_path, after_a_restart, **costly)


def test_one_refused_question_keeps_no_other_one(tmp_path: Path) -> None:
    def choosy(body: dict[str, Any]) -> web.Response:
        if "Ann has 4 nuts" in body["prompt"]:
            return refusal({"error": {"message": "content policy", "code": "content_filter"}})
        return says_the_sum(body)

    async def scenario(desk: Desk, _: Endpoint) -> None:
        outcomes = await asyncio.gather(*map(desk.pass_on, QUESTIONS), return_exceptions=True)
        assert isinstance(outcomes[1], TeacherFailed)
        assert "content policy" in str(outcomes[1])
        assert [one.answer for one in outcomes if isinstance(one, Voted)] == ["5", "7", "8", "9", "10"]

    at_the_desk(tmp_path, scenario, habit=choosy)


def test_what_a_dead_teacher_left_is_asked_at_the_next_start(tmp_path: Path) -> None:
    async def dead(desk: Desk, _: Endpoint) -> None:
        with pytest.raises(TeacherFailed):
            await desk.pass_on(QUESTIONS[0])

    async def alive(desk: Desk, served: Endpoint) -> None:
        for _ in range(200):
            if not desk.under_way:
                break
            await asyncio.sleep(0.05)
        assert len(served.bodies) == 1

    at_the_desk(tmp_path, dead, habit=lambda _: refusal({"error": {"message": "down"}}, 503))
    notices: list[str] = []
    at_the_desk(tmp_path, alive, notices=notices)
    assert notices[0] == (
        "1 question of an earlier start lacks samples; asking the teacher, as far as the budget goes."
    )
    [voted] = rows(tmp_path, "votes")
    assert (voted["split"], voted["winner"], voted["n_sampled"]) == (PASSED_ON, "5", 3)


def test_who_waits_too_long_leaves_and_the_samples_are_stored(tmp_path: Path) -> None:
    async def scenario(desk: Desk, served: Endpoint) -> None:
        served.together = 2  # no request is answered before two are there
        with pytest.raises(TimeoutError):
            await desk.pass_on(QUESTIONS[0])
        assert desk.under_way == 1
        await desk.pass_on(QUESTIONS[1])

    at_the_desk(tmp_path, scenario, cascade=CascadeSettings(wait_s=5), habit=lambda _: None)
    assert {row["n_sampled"] for row in rows(tmp_path, "votes")} == {3}


def test_a_forgotten_question_is_not_asked(tmp_path: Path) -> None:
    async def scenario(desk: Desk, served: Endpoint) -> None:
        [voted, *_] = await asyncio.gather(*map(desk.pass_on, QUESTIONS))
        assert forgotten(Store(tmp_path / "store"), voted.example_id) == [voted.example_id]
        asked = len(served.bodies)
        with pytest.raises(UsageError, match="it was forgotten"):
            await desk.pass_on(QUESTIONS[0])
        assert len(served.bodies) == asked

    at_the_desk(tmp_path, scenario)
