"""The lab: a controlled world of word problems, for machines with no GPU and no model hub.

Questions are procedural (`lab_problems.py`), labels are exact and every example brings the solver's own solution.
The lab's teacher is trained on worked problems of a split of its own, so it has seen none of the questions below.

| split      | questions | for |
|------------|-----------|-----|
| train      | 2,000     | what the teacher is sampled on and students learn from |
| validation | 400       | choosing the best round |
| test       | 800       | read once, at the end |

Which split a question belongs to is decided by a hash of its text, so the splits are disjoint whatever their
sizes. The same version of the problems yields the same questions in the same order on every machine.
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

SPLIT_SIZES = {"train": 2000, "validation": 400, "test": 800}
TEACHER_SPLIT = "teacher"
# Of the 16 values of the hash, which split gets how many.
_SHARES = {TEACHER_SPLIT: 10, "train": 3, "validation": 1, "test": 2}
_SPLIT_OF_HASH = tuple(split for split, share in _SHARES.items() for _ in range(share))


def lab_dataset() -> Dataset:
    """The dataset. Its teacher prompt is the question and a line break, nothing else: what the teacher knows."""
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
    """What the lab's teacher is trained on: prompts as `lab_dataset` writes them, and worked solutions.

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
    """The problems of a split, without end, each question once.

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
    """The one split that this question can be in."""
    return _SPLIT_OF_HASH[blake2b(question.encode(), digest_size=1).digest()[0] % len(_SPLIT_OF_HASH)]


def _rows(split: str) -> Iterator[Mapping[str, Any]]:
    for problem in islice(problems(split), SPLIT_SIZES[split]):
        solution = solve(problem)
        yield {
            "question": problem.question,
            "label": str(solution.answer),
            "solution": solution.text,
            "kind": problem.kind,
        }


def _prompt(question: str, choices: tuple[str, ...]) -> Prompt:  # noqa: ARG001 - one signature for all datasets
    # The teacher ends a solution with its end-of-text token; the stop string is for a teacher that rambles on.
    return Prompt(system="", turns=(), question=question, plain=f"{question}\n", stop=("\n",))
