"""`qcrd sample --n 2..8`: a question is asked again only while its majority is in doubt."""

import asyncio
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from storage.store import Store
from tasks.teacher.settings import TeacherSettings
from tasks.teacher.stopping import Asking, doubt
from tests.models.endpoint import Endpoint, refusal, serving
from tests.tasks.teacher.test_sampling import questions, sample, sampling

RULE = Asking(2, 8, 0.2)


def answering(body: dict[str, Any]) -> web.Response:
    """Sure of the first half of the questions, at odds with itself about the others; it refuses the one about 13."""
    apples = int(re.findall(r"has (\d+) apples", body["prompt"])[-1])
    if apples == 13:
        return refusal({"error": {"message": "this text was flagged", "code": "content_filter"}})
    numbers = [apples - 1 if apples < 10 else random.Random(body["seed"] + i).randrange(6) for i in range(body["n"])]
    choices = [
        {"index": i, "text": f"So the answer is {number}.", "finish_reason": "stop"} for i, number in enumerate(numbers)
    ]
    return web.json_response({"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": 5 * len(numbers)}})


def stored(home: Path) -> dict[str, list[str | None]]:
    """example_id -> answers in the order of their indices, which have no gap."""
    rows = Store(home / "store").query(
        "SELECT example_id, list(sample_index ORDER BY sample_index) AS indices, list(answer ORDER BY sample_index) AS "
        "answers FROM rationales GROUP BY example_id"
    )
    found = {row["example_id"]: row["answers"] for row in rows.to_pylist()}
    assert all(row["indices"] == list(range(len(row["indices"]))) for row in rows.to_pylist())
    return found


def wanted(answers: Sequence[str | None]) -> int:
    """Asks one by one, as the rule is stated."""
    count = RULE.least
    while count < RULE.most and doubt(answers[:count], RULE.most - count) > RULE.allowed:
        count += 1
    return count


async def run(home: Path, endpoint: Endpoint, file: Path, *more: object) -> dict[str, Any]:
    code, out, err = await sample(home, endpoint, file, "--n", "2..8", *more)
    assert code == 0, err
    figures: dict[str, Any] = json.loads(out)
    return figures


def test_a_question_is_asked_until_its_majority_is_clear(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        async with serving(habit=answering) as endpoint:
            file = questions(tmp_path, 20)
            first = await run(home, endpoint, file)
            answers = stored(home)
            assert len(answers) == 19
            assert sum(len(texts) for texts in answers.values()) == first["sampled"] == first["samples"] - 2
            assert "flagged" in next(iter(first["refused"].values()))
            sure = [texts for texts in answers.values() if len(set(texts)) == 1 and len(texts) == 2]
            assert len(sure) >= 10
            assert all(len(texts) == wanted(texts) for texts in answers.values())
            assert max(len(texts) for texts in answers.values()) > 5

            requests = len(endpoint.bodies)
            again = await run(home, endpoint, file)
            assert (again["sampled"], again["samples"] - again["stored_before"]) == (0, 2)
            assert len(endpoint.bodies) <= requests + 2, "the refused one, and one that tells that others are answered"
            assert stored(home) == answers

            more = await run(home, endpoint, file, "--doubt", 0)
            assert more["sampled"] > 0
            assert {key: texts[: len(answers[key])] for key, texts in stored(home).items()} == answers

    asyncio.run(scenario())


def test_after_a_kill_it_asks_as_it_would_have(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        async with serving(habit=answering) as endpoint:
            file = questions(tmp_path, 20)
            async with sampling(home, endpoint, file, "--n", "2..8", "--in-flight", 1) as process:
                while len(endpoint.bodies) < 15:
                    await asyncio.sleep(0.01)
                await process.kill()
            await run(home, endpoint, file)
            await run(home / "other", endpoint, file)
            assert stored(home) == stored(home / "other")

    asyncio.run(scenario())


@given(st.lists(st.sampled_from(["1", "2", None]), max_size=8), st.integers(1, 4), st.integers(0, 4), st.floats(0, 0.5))
def test_more_samples_never_take_back_an_end(answers: list[str | None], least: int, more: int, allowed: float) -> None:
    asking = Asking(least, least + more, allowed)
    counts = [asking.wanted(answers[:count]) for count in range(len(answers) + 1)]
    assert counts == sorted(counts)
    assert all(asking.least <= count <= asking.most for count in counts)
    settled = [count for count in range(len(answers) + 1) if counts[count] <= count]
    assert all(counts[count] == counts[settled[0]] for count in settled)


@pytest.mark.parametrize(
    ("n", "kept", "least", "most"), [(5, 5, 5, 5), ("5", 5, 5, 5), ("2..8", "2..8", 2, 8), ("3..3", 3, 3, 3)]
)
def test_a_number_or_a_range(n: int | str, kept: int | str, least: int, most: int) -> None:
    settings = TeacherSettings(source="stored", n=n)
    assert settings.n == kept
    assert settings.asking == Asking(least, most, settings.doubt)


@pytest.mark.parametrize("n", [0, -1, "8..2", "0..2", "2-8", "two", "1..5000", "2..8..9", 2.5])
def test_what_is_neither(n: Any) -> None:
    with pytest.raises(ValueError, match=r"it is a number from 1 to 1,024, or .* such as 2\.\.8|valid"):
        TeacherSettings(source="stored", n=n)
