"""What a run may pay: never more, whatever is under way, before a crash and after."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from models.teacher import SamplingConfig, Teacher, TeacherReply, TeacherRequest
from storage.datasets.definition import Example, Parsed
from storage.datasets.registry import get_dataset
from storage.rationales import rationale_row
from storage.schemas import RATIONALES
from storage.store import Store
from tasks.questions.stored import store_examples
from tasks.teacher.budget import AROUND_A_PROMPT, Budget, Purse, affordable, paid_before, tokens_of
from tasks.teacher.settings import Price, TeacherSettings
from tests.models.endpoint import config, refusal, serving

SAMPLING = SamplingConfig(api="completions", n=2, max_tokens=20)


def ask(name: int, n: int = 2) -> TeacherRequest:
    return TeacherRequest(f"q{name}", "Q: 1 + 1?\nA:", [{"role": "user", "content": "1 + 1?"}], (), n, 100 * name)


def answering(body: dict[str, Any]) -> web.Response:
    """As many completion tokens as it may, for every third question; fewer for the others. It refuses the fifth."""
    number = body["seed"] // 100
    if number == 5:
        return refusal({"error": {"message": "this text was flagged", "code": "content_filter"}})
    count = body["n"] * (body["max_tokens"] if number % 3 == 0 else 3)
    choices = [{"index": i, "text": f"text {i}", "finish_reason": "stop"} for i in range(body["n"])]
    return web.json_response({"choices": choices, "usage": {"prompt_tokens": 11, "completion_tokens": count}})


async def sampled(purse: Purse, in_flight: int, together: int = 1) -> tuple[list[TeacherReply], int]:
    async with (
        serving(habit=answering, together=together) as endpoint,
        Teacher(config(endpoint, in_flight=in_flight), SAMPLING, payer=purse) as teacher,
    ):
        replies = [one async for one in teacher.sample_many([ask(number) for number in range(40)], lambda _: None)]
        return replies, len(endpoint.bodies)


@pytest.mark.parametrize("in_flight", [1, 7, 64])
def test_it_stops_before_the_limit_however_many_are_under_way(in_flight: int) -> None:
    purse = Purse(1000, tokens_of, SAMPLING)
    replies, _ = asyncio.run(sampled(purse, in_flight))
    spent = sum((one.prompt_tokens or 0) + (one.completion_tokens or 0) for one in replies)
    assert purse.exhausted
    assert spent == purse.spent <= 1000
    assert purse.limit - purse.spent < purse.most(ask(1)), "what is left pays for no other one"


def test_what_was_paid_before_counts_and_a_large_limit_is_not_felt() -> None:
    replies, _ = asyncio.run(sampled(Purse(1e9, tokens_of, SAMPLING, spent=500), 8))
    assert len(replies) == 39
    purse = Purse(1000, tokens_of, SAMPLING, spent=1000 - 12 - AROUND_A_PROMPT - 40 + 1)
    replies, asked = asyncio.run(sampled(purse, 8))
    assert (replies, asked) == ([], 0), "one byte too little for the most that a request may cost"
    assert purse.exhausted


def test_a_reply_that_tells_no_tokens_counts_the_most_that_it_may_cost() -> None:
    async def scenario() -> None:
        purse = Purse(1000, tokens_of, SAMPLING)
        assert await purse.admit(ask(1))
        await purse.settle(ask(1), TeacherReply("q1", (), None, None, None, None, None))
        assert purse.spent == purse.most(ask(1))

    asyncio.run(scenario())


def test_what_is_refused_costs_nothing_and_gives_back_its_place() -> None:
    async def scenario() -> None:
        purse = Purse(0, tokens_of, SAMPLING)
        purse.limit = purse.most(ask(1)) * 1.5
        assert await purse.admit(ask(1))
        waiting = asyncio.create_task(purse.admit(ask(2)))
        await asyncio.sleep(0.01)
        assert not waiting.done(), "there may be room for it yet"
        await purse.settle(ask(1), None)
        assert await waiting
        assert purse.spent == 0

    asyncio.run(scenario())


@hypothesis_settings(max_examples=50)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.integers(0, 3000), st.integers(1, 8))
def test_no_order_of_replies_exceeds_it(sizes: list[int], limit: int, workers: int) -> None:
    async def scenario() -> None:
        purse = Purse(limit, tokens_of, SAMPLING)
        source = iter(list(enumerate(sizes)))

        async def work() -> None:
            for number, n in source:
                request = ask(number, n)
                if not await purse.admit(request):
                    return
                await asyncio.sleep(0)
                cost = int(purse.most(request)) // (1 + number % 3)
                reply = TeacherReply(request.request_id, (), cost, 0, 0, None, None)
                await purse.settle(request, reply if number % 4 else None)

        await asyncio.wait_for(asyncio.gather(*[work() for _ in range(workers)]), 10)
        assert purse.spent <= limit

    asyncio.run(scenario())


def test_what_a_run_has_stored_counts_and_what_others_have_tells_what_a_question_costs(tmp_path: Path) -> None:
    store, lab = Store(tmp_path), get_dataset("lab")
    [asked] = store_examples(store, lab, "train", [Example("1 + 1?", (), "2")]).example_ids
    rows = [
        rationale_row(
            "teacher", sample_id=f"s{index}", example_id=asked, dataset="lab", split="train", model="big",
            sample_index=index, text="2", parsed=Parsed("", "2", None), run_id=run, prompt_tokens=prompt,
            completion_tokens=completion,
        )
        for index, (run, prompt, completion) in enumerate(
            [("mine", 11, 20), ("mine", 11, 10), ("mine", None, None), ("another", 11, 30)]
        )
    ]  # fmt: skip
    store.append(RATIONALES, pa.Table.from_pylist(rows, RATIONALES.schema))
    unknown = len(b"1 + 1?\n") + AROUND_A_PROMPT + SAMPLING.max_tokens
    assert paid_before(store, lab, "train", "mine", tokens_of, SAMPLING) == 31 + 21 + unknown
    assert paid_before(store, lab, "train", "new", tokens_of, SAMPLING) == 0

    def buys(model: str, **budget: Any) -> int | None:
        return affordable(store, lab, "train", model, Budget(**budget), tokens_of, 2)

    assert buys("big", tokens=510) == 10, "11 of the prompt and twice 20"
    assert buys("other", tokens=510) is None
    assert buys("other", questions=7) == 7


def test_thoughts_that_cost_more_are_expected() -> None:
    price = Price(per_million_prompt=1.0, per_million_completion=2.0, per_million_reasoning=6.0)
    purse = Purse(1.0, price.of, SAMPLING)
    prompt = len(b"Q: 1 + 1?\nA:") + AROUND_A_PROMPT
    assert purse.most(ask(1)) == pytest.approx((prompt * 1.0 + 40 * 6.0) / 1e6)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"budget": {}}, "a budget is one of questions, tokens and money"),
        ({"budget": {"questions": 3, "tokens": 4}}, "a budget is one of questions, tokens and money"),
        ({"budget": {"questions": 0}}, "greater than or equal to 1"),
        ({"budget": {"money": 3}}, "a budget of money needs `price`"),
        ({"choose": "uncertain"}, "choose: uncertain needs a `budget`"),
        ({"budget": {"questions": 3}, "source": "stored"}, "`budget` belongs to source: sample"),
        ({"budget": {"tokens": 3}, "shards": 2}, "watched by one run"),
        ({"budget": {"tokens": 3}, "batch": True}, "watched by one run"),
        ({"budget": {"tokens": 3}, "extra_body": {"max_completion_tokens": 9}}, "goes by teacher.max_tokens"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(text)):
        TeacherSettings(model="m", url="http://host/v1", **settings)
