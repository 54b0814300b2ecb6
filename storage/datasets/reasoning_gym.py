"""The datasets of the reasoning-gym package, as `reasoning-gym:NAME` (`reasoning-gym:gsm_symbolic`).

The package makes questions from a seed and has neither files nor splits, so here each split has a seed. Question i is
made from `seed + i`. The seeds below are 700 million apart, so splits of up to that many questions are disjoint.

Many questions have several right answers, so the package's own scorer decides whether an answer is right. It gets the
entry that the question was made from, which is kept in the example's `extra`.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any

from storage.datasets.definition import Dataset, Example, Parsed
from storage.datasets.layout import examples_from_file, no_field
from storage.datasets.parsing import EMPTY_TEXT, NO_ANSWER, normalise_number, parse_number
from storage.datasets.prompts import few_shot, render_question
from storage.datasets.statements import find_statements, rationale_of
from storage.datasets.values import as_text, jsonable
from storage.errors import UnknownName

PREFIX = "reasoning-gym:"
SPLIT_SEEDS = {"train": 0, "validation": 700_000_000, "test": 1_400_000_000}
DEFAULT_SIZES = {"train": 1000, "validation": 200, "test": 200}  # questions, if no limit is given

MAX_ANSWER = 4000  # characters passed to a scorer; the largest grids are shorter
_LEFT_OUT = {"composite"}  # consists of other datasets, so its name alone is not enough
if importlib.util.find_spec("pycosat") is None:
    # The package always imports pycosat, although only zebra_puzzles needs it. There is no wheel of it, and a machine
    # may lack the C compiler to build it; all other datasets work without.
    sys.modules.setdefault("pycosat", ModuleType("pycosat"))
    _LEFT_OUT.add("zebra_puzzles")
_NUMERIC_PROBE = 12  # entries whose answers show whether answers are numbers
_PLAIN_NUMBER = re.compile(r"[-+]?(?:0|[1-9]\d*)(?:\.\d+)?")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)

_INSTRUCTION = (
    "Solve the problem. Think step by step, then finish with the answer alone between <answer> and </answer>, "
    "exactly in the form the problem asks for."
)


def reasoning_gym_names() -> list[str]:
    """The names allowed after the prefix. Imports the package, which takes a second or two."""
    from reasoning_gym.factory import DATASETS

    return sorted(set(DATASETS) - _LEFT_OUT)


def reasoning_gym_dataset(name: str) -> Dataset:
    """The dataset of a name without the prefix.

    Raises:
        UnknownName: the package has no such dataset.
    """
    names = reasoning_gym_names()
    if name not in names:
        hint = "zebra_puzzles needs `pip install pycosat` and a C compiler." if name == "zebra_puzzles" else ""
        raise UnknownName("reasoning-gym dataset", name, names, hint)

    def load(split: str, path: str | None = None, limit: int | None = None) -> Iterator[Example]:
        if path is not None:
            return examples_from_file(_example_from_row(name), path, limit)
        if split not in SPLIT_SEEDS:
            raise UnknownName("split", split, SPLIT_SEEDS)
        return _made(name, split, limit)

    return Dataset(
        name=f"{PREFIX}{name}",
        description=f"made by the reasoning-gym package from a seed: {name.replace('_', ' ')}",
        answer_kind="custom",
        splits=tuple(SPLIT_SEEDS),
        load=load,
        teacher_prompt=few_shot(_INSTRUCTION, ()),
        student_input=render_question,
        parse=lambda text, choices: _parse(name, text),  # noqa: ARG005 - one signature for all datasets
        normalise=lambda answer, choices: _normalise(name, answer),  # noqa: ARG005
        equal=_equal,
        compares_strings=False,
        example_from_row=_example_from_row(name),
        fields=("question", "label", "entry"),
    )


@lru_cache(maxsize=32)
def _generator(name: str, seed: int, size: int) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(name, seed=seed, size=size)


def _made(name: str, split: str, limit: int | None) -> Iterator[Example]:
    seed = SPLIT_SEEDS[split]
    size = DEFAULT_SIZES[split] if limit is None else limit
    if size <= 0:
        return
    generator = _generator(name, seed, size)
    for index in range(size):
        entry = generator[index]
        # Entries are stored as JSON, where tuples become lists and keys become texts. A few scorers mind; for them, the
        # entry is made again from its seed when needed.
        stored = json.loads(json.dumps(jsonable(entry)))
        gold = entry["answer"]
        extra: dict[str, Any] = {"entry": stored, "gym": name, "seed": seed, "index": index}
        if gold is not None and _score(generator, gold, stored) != _score(generator, gold, entry):
            extra["remake"] = True
        yield Example(str(entry["question"]).strip(), (), None if gold is None else _normalise(name, str(gold)), extra)


def _equal(answer: str, label: str, extra: Mapping[str, Any]) -> bool:
    """Whether the answer is the package's own, or its scorer gives it full marks."""
    if answer == label:
        return True
    name, entry = extra.get("gym"), extra.get("entry")
    if not isinstance(name, str) or not isinstance(entry, Mapping) or len(answer) > MAX_ANSWER:
        return False
    if extra.get("remake"):
        index = int(extra["index"])
        generator = _generator(name, int(extra["seed"]), index + 1)
        entry = generator[index]
    else:
        generator = _generator(name, 0, 1)
    return _score(generator, answer, entry) >= 1.0


def _score(generator: Any, answer: str, entry: Mapping[str, Any]) -> float:
    try:
        return float(generator.score_answer(answer, entry))
    except Exception:  # a hundred scorers of many authors; an answer that one fails on is wrong
        return 0.0


def _example_from_row(name: str) -> Callable[[Mapping[str, Any]], Example]:
    def example(row: Mapping[str, Any]) -> Example:
        if not row.get("question"):
            raise no_field("question", row)
        label = row.get("label")
        entry = row.get("entry") or {
            "question": row["question"],
            "answer": label,
            "metadata": row.get("metadata") or {},
        }
        question = as_text(row["question"], "question").strip()
        normalised = None if label is None else _normalise(name, as_text(label, "label"))
        return Example(question, (), normalised, {"entry": jsonable(entry), "gym": name})

    return example


@lru_cache(maxsize=128)
def _answers_are_numbers(name: str) -> bool:
    generator = _generator(name, SPLIT_SEEDS["test"] - _NUMERIC_PROBE, _NUMERIC_PROBE)
    answers = [generator[index]["answer"] for index in range(_NUMERIC_PROBE)]
    return all(isinstance(answer, str) and _PLAIN_NUMBER.fullmatch(answer) for answer in answers)


def _normalise(name: str, answer: str) -> str | None:
    """Gives numbers their canonical spelling; strips Markdown and white space around other answers."""
    if _answers_are_numbers(name):
        number = normalise_number(answer)
        if number is not None:
            return number
    return answer.strip().strip("*`").strip() or None


def _parse(name: str, text: str) -> Parsed:
    """The answer between tags, else the last announced one; where answers are numbers, else the text's conclusion."""
    if not text.strip():
        return Parsed("", None, EMPTY_TEXT)
    tagged = list(_TAGGED.finditer(text))
    if tagged:
        answer = _normalise(name, tagged[-1].group(1))
        return Parsed(text[: tagged[-1].start()].strip(), answer, None if answer else NO_ANSWER)
    if _answers_are_numbers(name):
        return parse_number(text)
    statements = find_statements(text)
    for statement in reversed(statements):
        answer = _normalise(name, statement.said.strip().rstrip("."))
        if answer is not None:
            return Parsed(rationale_of(text, statements), answer, None)
    return Parsed(text.strip(), None, NO_ANSWER)
