"""The stand-in that writes variants in the lab: the product's prompts, the lab's words, right answers."""

import asyncio
import re
from collections.abc import Callable
from itertools import islice
from typing import Any

import aiohttp
import pytest

from benchmarks.rewriting import NAMES, NOUNS, Rewriter, asked_for, numbers, rewriting
from storage.datasets.lab import problems
from storage.datasets.lab_problems import Problem, solve
from storage.datasets.variants import VARIANT_KINDS, read_variant, variant_prompt
from tasks.questions.leaks import words_id
from tests.flows.test_planted_secret import endpoint

SOLVERS: dict[str, Callable[..., int]] = {
    "compare": lambda more, own, other: 2 * own + (other if more else -other),
    "times_as_many": lambda more, own, times: own * times - own if more else own * times + own,
    "share": lambda _, start, gained, friends: (start + gained) // friends,
    "reading": lambda more, first, other: 2 * first + (other if more else -other),
    "shop": lambda _, *all_of_it: (
        all_of_it[-3] * all_of_it[-2] + all_of_it[-1] if len(all_of_it) == 3
        else all_of_it[0] - all_of_it[1] * all_of_it[2] - all_of_it[3]
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def rewriter() -> Rewriter:
    return Rewriter()


@pytest.fixture(scope="module")
def sources() -> list[Problem]:
    return list(islice(problems("train"), 400))


def solved(kind: str, question: str) -> int | None:
    """The answer, found from the text alone; None for a kind that no solver here knows."""
    return SOLVERS[kind](" more " in question, *map(int, numbers(question))) if kind in SOLVERS else None


def masked(question: str, groups: tuple[tuple[str, ...], ...]) -> str:
    """A question without the words that may be others."""
    return re.sub("|".join(rf"\b{word}\b" for group in groups for word in group), "_", question)


def test_rephrased_is_the_same_but_for_the_names(rewriter: Rewriter, sources: list[Problem]) -> None:
    for problem in sources:
        text = rewriter.write("rephrased", problem.question, 1)
        assert words_id(text) != words_id(problem.question)
        assert masked(text, NAMES) == masked(problem.question, NAMES)
        assert rewriter.answer(problem.question, text) == solve(problem).answer
        assert solved(problem.kind, text) in (None, solve(problem).answer)


def test_changed_has_the_words_of_the_lab_and_another_answer(rewriter: Rewriter, sources: list[Problem]) -> None:
    words = re.compile("[A-Za-z]+")
    vocabulary = {word for problem in sources for word in words.findall(problem.question)}
    same = 0
    for problem in sources:
        text = rewriter.write("changed", problem.question, 1)
        assert set(words.findall(text)) <= vocabulary
        groups = (*NAMES, *NOUNS)
        assert re.sub(r"\d+", "0", masked(text, groups)) == re.sub(r"\d+", "0", masked(problem.question, groups))
        assert numbers(text) != numbers(problem.question)
        answer = rewriter.answer(problem.question, text)
        assert solved(problem.kind, text) in (None, answer)
        same += answer == solve(problem).answer
    assert same <= 4, "only of forms of which the lab has hardly any"


def test_pronouns_stay_with_their_people(rewriter: Rewriter, sources: list[Problem]) -> None:
    people = {name: group for group in NAMES for name in group}
    for problem in sources:
        old, new = (
            [people[word] for word in re.findall(r"\w+", text) if word in people]
            for text in (problem.question, rewriter.write("changed", problem.question, 3))
        )
        assert old == new


def test_the_same_request_gets_the_same_reply(rewriter: Rewriter, sources: list[Problem]) -> None:
    again = Rewriter()
    for kind in VARIANT_KINDS:
        of_seed = [[rewriter.write(kind, one.question, seed) for one in sources[:40]] for seed in (1, 2)]
        assert of_seed[0] == [again.write(kind, one.question, 1) for one in sources[:40]]
        assert of_seed[0] != of_seed[1]


def test_it_knows_the_prompts_of_variants_and_no_other(rewriter: Rewriter, sources: list[Problem]) -> None:
    question = sources[0].question
    for kind in VARIANT_KINDS:
        assert asked_for(variant_prompt(kind, question, ()).plain) == (kind, question)
        assert read_variant(rewriter.write(kind, question, 0), question) is not None
    assert asked_for(f"{question}\n") is None


def test_other_requests_are_passed_on_as_they_are(rewriter: Rewriter, sources: list[Problem]) -> None:
    question = sources[0].question

    async def ask(url: str, prompt: str) -> Any:
        body = {"model": "lab", "prompt": prompt, "n": 2, "seed": 5}
        async with aiohttp.ClientSession() as session, session.post(f"{url}/completions", json=body) as reply:
            return await reply.json()

    with endpoint() as served, rewriting(served.url) as url:
        answered = asyncio.run(ask(url, f"{question}\n"))
        [passed_on] = served.bodies
        assert passed_on == {"model": "lab", "prompt": f"{question}\n", "n": 2, "seed": 5}
        assert [choice["text"] for choice in answered["choices"]] == ["text 5", "text 6"]
        written = asyncio.run(ask(url, variant_prompt("changed", question, ()).plain))
        assert [choice["text"] for choice in written["choices"]] == [rewriter.write("changed", question, 5)]
        assert len(served.bodies) == 1


def test_the_solvers_here_are_right(sources: list[Problem]) -> None:
    found = {one.kind for one in sources if solved(one.kind, one.question) == solve(one).answer}
    assert found == SOLVERS.keys()
    assert all(solved(one.kind, one.question) in (None, solve(one).answer) for one in sources)
