"""The lab: a controlled world of word problems, for machines without a GPU or a model hub.

Questions are procedural (`lab_problems.py`), labels are exact, and every example has the solver's solution. The lab's
teacher is trained on worked problems of a separate split, so it has seen none of these questions:

| split      | questions | for |
|------------|-----------|-----|
| train      | 8,000     | what the teacher is sampled on and students learn from |
| validation | 1,000     | choosing the best round, and between methods |
| test       | 800       | read once, at the end |
| fresh      | 3,000     | claims about methods: read once, after all choices (docs/results.md) |

A hash of its text decides the split of a question, so the splits are disjoint whatever their sizes. One version of
the problems gives the same questions in the same order on every machine.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import blake2b
from itertools import islice
from random import Random
from typing import Any

from storage.datasets.assembly import NUMBERS, assemble
from storage.datasets.definition import Dataset, Prompt
from storage.datasets.lab_problems import PROBLEM_VERSION, Problem, draw_problem, solve, solve_with_slips

SPLIT_SIZES = {"train": 8000, "validation": 1000, "test": 800, "fresh": 3000}
TEACHER_SPLIT = "teacher"
# How many of the hash's 16 values each split gets.
_SHARES = {TEACHER_SPLIT: 10, "train": 3, "validation": 1, "test": 2}
_SPLIT_OF_HASH = tuple(split for split, share in _SHARES.items() for _ in range(share))


def lab_dataset() -> Dataset:
    """The dataset. Its teacher prompt is only the question and a line break, as the teacher was trained."""
    dataset = assemble(
        name="lab",
        description="procedural word problems with exact solutions; needs no network",
        answers=NUMBERS,
        splits=tuple(SPLIT_SIZES),
        rows=_rows,
        instruction="",
        exemplars=(),
    )
    return replace(dataset, teacher_prompt=_prompt)


def teacher_texts(count: int, slips: float) -> list[tuple[str, str]]:
    """The texts that the lab's teacher is trained on: (prompt of `lab_dataset`, worked solution).

    Args:
        count: how many; all questions differ, and none is in another split.
        slips: the share of calculations that are off by one, 0 to 1.
    """
    rng = Random(f"lab slips {PROBLEM_VERSION}")  # noqa: S311 - reproducible, no secret
    return [
        (_prompt(problem.question, ()).plain, solve_with_slips(problem, slips, rng).text)
        for problem in islice(problems(TEACHER_SPLIT), count)
    ]


def problems(split: str) -> Iterator[Problem]:
    """The problems of a split, endless, each question once.

    Args:
        split: train, validation, test or teacher.
    """
    rng = Random(f"lab {PROBLEM_VERSION} {split}")  # noqa: S311 - reproducible, no secret
    seen: set[str] = set()
    while True:
        problem = draw_problem(rng)
        if split_of(problem.question) == split and problem.question not in seen:
            seen.add(problem.question)
            yield problem


def split_of(question: str) -> str:
    """The split that a question belongs to."""
    return _SPLIT_OF_HASH[blake2b(question.encode(), digest_size=1).digest()[0] % len(_SPLIT_OF_HASH)]


def _rows(split: str) -> Iterator[Mapping[str, Any]]:
    for problem in _problems_of(split):
        solution = solve(problem)
        yield {
            "question": problem.question,
            "label": str(solution.answer),
            "solution": solution.text,
            "kind": problem.kind,
        }


def _problems_of(split: str) -> Iterator[Problem]:
    if split == "fresh":  # what follows the test questions, so that those stay what they were
        return islice(problems("test"), SPLIT_SIZES["test"], SPLIT_SIZES["test"] + SPLIT_SIZES["fresh"])
    return islice(problems(split), SPLIT_SIZES[split])


def _prompt(question: str, choices: tuple[str, ...]) -> Prompt:  # noqa: ARG001 - one signature for all datasets
    # The teacher ends a solution with its end-of-text token; the stop string is for one that rambles on.
    return Prompt(system="", turns=(), question=question, plain=f"{question}\n", stop=("\n",))
