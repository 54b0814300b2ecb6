"""A stand-in for a teacher that writes variants of the lab's questions, by rules, before the lab's own teacher.

The lab's teacher answers questions and writes none. This endpoint passes requests for answers on to it as they are,
and answers the prompts of storage/datasets/variants.py itself:

- "rephrased": the same text with other names;
- "changed": the same text with other names, other things and other numbers, those of another problem of the same kind
  and calculations, so it can be solved; its answer is another one, wherever the lab has such a problem.

The same request gets the same reply. No large model is asked: this is a teacher that rewrites faithfully and without a
slip, which never hands in nonsense and never changes the style. It is at best as good, and poorer in variety.
"""

import asyncio
import json
import multiprocessing
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection
from random import Random

import aiohttp
from aiohttp import web

from benchmarks import loopback
from storage.datasets.lab import SPLIT_SIZES, TEACHER_SPLIT, problems
from storage.datasets.lab_problems import DISTRACTORS, EXTRAS, GOODS, HOLDERS, PEOPLE, THINGS, Problem, solve
from storage.datasets.variants import VARIANT_KINDS, VariantKind, variant_prompt

DONORS = 20_000
"""Problems whose numbers a changed question may get; they are of the split that the lab's teacher learnt from."""
NAMES = tuple(
    tuple(person.name for person in PEOPLE if person.pronoun == pronoun)
    for pronoun in sorted({person.pronoun for person in PEOPLE})
)
"""Words of which one can stand in another one's place."""
NOUNS = (THINGS, HOLDERS, GOODS, EXTRAS)
_ASIDE = "|".join(re.escape(sentence).replace(r"\{n\}", r"\d+") for sentence in DISTRACTORS)
_ASKED = re.compile(r"\n\nQuestion:\n(.*)\n\nNew question:\n", re.DOTALL)

Numbers = tuple[str, ...]


class Rewriter:
    """Rewrites the training questions of the lab."""

    def __init__(self) -> None:
        self._problems = {one.question: one for one in islice(problems("train"), SPLIT_SIZES["train"])}
        # Of one kind and calculations, the numbers have one order in the text.
        self._donors: defaultdict[tuple[str, ...], dict[Numbers, int]] = defaultdict(dict)
        for one in islice(problems(TEACHER_SPLIT), DONORS):
            self._donors[_form(one)][numbers(one.question)] = solve(one).answer

    def write(self, kind: VariantKind, question: str, seed: int) -> str:
        """A variant; another seed may give another one."""
        rng = Random(f"{kind} {question} {seed}")
        if kind == "rephrased":
            return _reworded(question, NAMES, rng)
        own, donors = self.answer(question, question), self._donors[_form(self._problems[question])]
        others = [found for found in donors if found != numbers(question)]
        new = iter(rng.choice([found for found in others if donors[found] != own] or others))

        def replaced(match: re.Match[str]) -> str:
            if match[0].isdigit():
                return next(new)
            [old] = re.findall(r"\d+", match[0])
            return match[0].replace(old, rng.choice([digit for digit in "23456789" if digit != old]))

        return _reworded(re.sub(rf"{_ASIDE}|\d+", replaced, question), (*NAMES, *NOUNS), rng)

    def answer(self, question: str, variant: str) -> int:
        """The answer of a question's variant."""
        problem = self._problems[question]
        if numbers(variant) == numbers(question):
            return solve(problem).answer
        return self._donors[_form(problem)][numbers(variant)]


def numbers(question: str) -> Numbers:
    """The numbers that matter, in order."""
    return tuple(re.findall(r"\d+", re.sub(_ASIDE, "", question)))


def asked_for(prompt: str) -> tuple[VariantKind, str] | None:
    """Kind and source of the variant that is asked for; None for another prompt."""
    found = _ASKED.search(prompt)
    kinds = [kind for kind in VARIANT_KINDS if found and variant_prompt(kind, found[1], ()).plain == prompt]
    return (kinds[0], found[1]) if found and kinds else None


@contextmanager
def rewriting(url: str) -> Iterator[str]:
    """The URL of the stand-in, in a process of its own.

    Args:
        url: of the lab's teacher.
    """
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, url), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        here.send("end")
        process.join()


def _serve(told: Connection, url: str) -> None:
    rewriter = Rewriter()

    async def serve() -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:

            async def completions(request: web.Request) -> web.StreamResponse:
                body = await request.read()
                read = json.loads(body)
                asked = asked_for(read["prompt"])
                if asked is None:
                    headers = {"Content-Type": "application/json"}
                    async with session.post(f"{url}/completions", data=body, headers=headers) as reply:
                        return web.Response(
                            body=await reply.read(), status=reply.status, content_type="application/json"
                        )
                text = rewriter.write(*asked, read.get("seed", 0))
                return web.json_response({"choices": [{"index": 0, "text": text, "finish_reason": "stop"}]})

            await loopback.serve(told, "completions", completions, lambda: None)

    asyncio.run(serve())


def _form(problem: Problem) -> tuple[str, ...]:
    return (problem.kind, *(step.sign for step in problem.steps))


def _reworded(text: str, groups: Sequence[Sequence[str]], rng: Random) -> str:
    """The text with other words in place of those that are in a group."""
    words, new = set(re.findall(r"\w+", text)), dict[str, str]()
    for group in groups:
        found = [word for word in group if word in words]
        new |= zip(found, rng.sample([word for word in group if word not in words], len(found)), strict=True)
    return re.sub(r"\w+", lambda match: new.get(match[0], match[0]), text)
