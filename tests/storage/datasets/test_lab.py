"""The lab's word problems: exact solutions, plain English, disjoint and reproducible splits."""

import re
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.datasets.definition import Example
from storage.datasets.lab import SPLIT_SIZES, TEACHER_SPLIT, lab_dataset, problems, split_of, teacher_texts
from storage.datasets.lab_problems import DISTRACTORS, KINDS, draw_problem, solve, solve_with_slips
from storage.datasets.registry import get_dataset
from storage.errors import UnknownName

SUM = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
ASIDES = [re.escape(text).replace(r"\{n\}", r"\d+") + r"\. " for text in DISTRACTORS]
seeds = st.integers(min_value=0, max_value=2**32)


def answer_from_the_question(kind: str, question: str) -> int:
    """Works the answer out from the English alone, knowing nothing of the solver's steps."""
    for aside in ASIDES:
        question = re.sub(aside, "", question)
    n = [int(number) for number in re.findall(r"\d+", question)]
    more = [-1 if word == "fewer" else 1 for word in re.findall(r"\b(?:more|fewer)\b", question)]
    if kind == "gain_and_lose":
        moves = re.findall(r"(finds|buys|gets|wins|gives away|gives|loses|sells) (\d+)", question)
        gained = {"finds", "buys", "gets", "wins"}
        return n[0] + sum(int(number) * (1 if verb in gained else -1) for verb, number in moves)
    if kind == "groups":
        gain = re.search(r"(finds|buys|gets|wins) \d+ more", question) is not None
        return n[0] * n[1] + (n[2] if gain else -n[2])
    if kind in ("compare", "reading"):
        return 2 * n[0] + more[0] * n[1]
    if kind == "times_as_many":
        return n[0] * n[1] + (n[0] if question.endswith("together?") else -n[0])
    if kind == "share":
        answer = (n[0] + n[1]) / n[2]
        assert answer == int(answer)
        return int(answer)
    assert kind == "shop"
    if question.endswith("pay?"):
        return n[0] * n[1] + n[2]
    return n[0] - (n[1] * n[2] + n[3])


def calculate(left: str, sign: str, right: str) -> int:
    a, b = int(left), int(right)
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[sign]


@pytest.fixture(scope="module")
def train() -> list[Example]:
    return list(lab_dataset().load("train"))


@given(seed=seeds)
def test_the_solver_agrees_with_a_reading_of_the_question(seed: int) -> None:
    problem = draw_problem(Random(seed))
    assert solve(problem).answer == answer_from_the_question(problem.kind, problem.question)


@given(seed=seeds)
def test_every_calculation_of_a_solution_is_right_and_the_last_one_is_the_answer(seed: int) -> None:
    solution = solve(draw_problem(Random(seed)))
    sums = SUM.findall(solution.text)
    assert 2 <= len(sums) <= 3
    assert all(calculate(left, sign, right) == int(result) for left, sign, right, result in sums)
    assert int(sums[-1][3]) == solution.answer
    assert 1 <= solution.answer <= 50
    assert solution.text.endswith(f" So the answer is {solution.answer}.")


@given(seed=seeds)
def test_the_text_is_plain_english(seed: int) -> None:
    problem = draw_problem(Random(seed))
    text = f"{problem.question} {solve(problem).text}"
    assert not re.search(r"\b[01] [a-z]+s\b", problem.question)  # "1 apples"
    assert problem.question.endswith("?")
    assert problem.question.count("?") == 1
    assert not re.search(r"  |\n|[{}]|\.\.| \.|\ba [aeiou]", text)
    assert all(sentence[0].isupper() for sentence in re.split(r"(?<=[.?]) ", text))
    women_and_men = {bool(re.search(rf"\b{pronoun}\b", text)) for pronoun in ("She", "He")}
    assert women_and_men != {True}  # the pronouns of one problem agree


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_occurs_in_every_split(kind: object) -> None:
    name = kind.__name__  # type: ignore[attr-defined]
    for split in (TEACHER_SPLIT, "train", "validation", "test"):
        assert any(problem.kind == name for problem in islice(problems(split), 200))


def test_splits_have_their_sizes_and_share_no_question() -> None:
    dataset = lab_dataset()
    questions = {split: [example.question for example in dataset.load(split)] for split in dataset.splits}
    assert {split: len(texts) for split, texts in questions.items()} == SPLIT_SIZES
    questions[TEACHER_SPLIT] = [problem.question for problem in islice(problems(TEACHER_SPLIT), 5000)]
    everything = [text for texts in questions.values() for text in texts]
    assert len(set(everything)) == len(everything)
    questions["test"] += questions.pop("fresh")
    assert all(split_of(text) == split for split, texts in questions.items() for text in texts)


def test_the_same_questions_every_time(train: list[Example]) -> None:
    assert list(lab_dataset().load("train")) == train
    assert list(lab_dataset().load("train", limit=7)) == train[:7]
    # Stored example ids depend on these texts: whoever changes them raises PROBLEM_VERSION.
    assert (
        train[0].question
        == "Ella has 4 buttons. Ben has 2 fewer than Ella. How many buttons do the two of them have together?"
    )


def test_solutions_parse_to_their_labels(train: list[Example]) -> None:
    dataset = lab_dataset()
    for example in train:
        parsed = dataset.parse(example.extra["solution"], ())
        assert parsed.answer == example.label
        assert dataset.normalise(str(example.label), ()) == example.label
        assert dataset.equal(str(parsed.answer), str(example.label), example.extra)


def test_the_prompt_is_the_question_alone(train: list[Example]) -> None:
    prompt = get_dataset("lab").teacher_prompt(train[0].question, ())
    assert prompt.plain == train[0].question + "\n"
    assert prompt.messages() == [{"role": "user", "content": train[0].question}]


def test_the_teacher_is_trained_on_the_prompts_it_will_be_asked() -> None:
    texts = teacher_texts(50, slips=0.0)
    for (prompt, completion), problem in zip(texts, problems(TEACHER_SPLIT), strict=False):
        assert prompt == lab_dataset().teacher_prompt(problem.question, ()).plain
        assert completion == solve(problem).text
    assert teacher_texts(50, slips=0.3) == teacher_texts(50, slips=0.3) != texts


def test_slips_are_as_frequent_as_asked_and_carried_on() -> None:
    rng, wrong, total = Random(0), 0, 0
    for problem in islice(problems(TEACHER_SPLIT), 2000):
        solution = solve_with_slips(problem, 0.2, rng)
        sums = SUM.findall(solution.text)
        wrong += sum(max(0, calculate(left, sign, right)) != int(result) for left, sign, right, result in sums)
        total += len(sums)
        # What is written is what is used: every later sum starts from a number of the question or a written result.
        known = set(re.findall(r"\d+", problem.question))
        for left, _, right, result in sums:
            assert {left, right} <= known
            known.add(result)
        assert solution.text.endswith(f"So the answer is {sums[-1][3]}.")
    assert wrong / total == pytest.approx(0.2, abs=0.02)


@given(seed=seeds)
def test_no_slips_is_the_exact_solution(seed: int) -> None:
    problem = draw_problem(Random(seed))
    assert solve_with_slips(problem, 0.0, Random(seed)) == solve(problem)


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(UnknownName, match=r"Unknown split 'trian'\. Did you mean 'train'"):
        list(lab_dataset().load("trian"))
