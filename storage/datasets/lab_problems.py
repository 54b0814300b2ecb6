"""The lab's word problems: each kind is a small function that writes a question and its solution.

A kind draws people, things and small whole numbers, and returns a `Problem`: the question in plain English and the
calculations that solve it, each with a sentence. `solve` does the calculations and writes the sentences out;
`solve_with_slips` does so like a hurried pupil, whose results are sometimes off by one. A question takes two or three
additions, subtractions, multiplications or exact divisions; no exact result is below 1 or above 50. Some questions
contain a sentence with a number that does not matter.

If you change a text or a number here, increase `PROBLEM_VERSION`: a cached teacher belongs to one version.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

PROBLEM_VERSION = 1


@dataclass(frozen=True)
class Before:
    """The result of an earlier calculation of the same problem, used as a number.

    Attributes:
        step: which calculation, counted from 0.
    """

    step: int


@dataclass(frozen=True)
class Step:
    """A calculation and its sentence.

    Attributes:
        sentence: English, with "{sum}" in place of "12 + 3 = 15".
        left, right: the two numbers.
        sign: + - * or /.
    """

    sentence: str
    left: int | Before
    sign: str
    right: int | Before


@dataclass(frozen=True)
class Solution:
    """A solved problem: the text, which ends with "So the answer is N.", and N."""

    text: str
    answer: int


@dataclass(frozen=True)
class Problem:
    """A word problem.

    Attributes:
        kind: the function of this file that wrote it.
        question: a paragraph that ends with a question mark.
        steps: the calculations in order; the last result is the answer.
    """

    kind: str
    question: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Person:
    """A person in a problem: a name, and the pronoun that begins a sentence about them."""

    name: str
    pronoun: str


PEOPLE = tuple(
    [Person(name, "She") for name in ("Ann", "Mia", "Zoe", "Lucy", "Nora", "Ella", "Ruth", "Ivy")]
    + [Person(name, "He") for name in ("Ben", "Tom", "Sam", "Leo", "Max", "Paul", "Hugo", "Finn")]
)
# Every number of things in a question is at least 2, so the plural is always right.
THINGS = ("apples", "marbles", "pencils", "stickers", "shells", "stamps", "buttons", "cards", "coins", "balloons")
HOLDERS = ("bags", "boxes", "baskets", "jars")
GOODS = ("pens", "rulers", "muffins", "tickets", "candles")
EXTRAS = ("bag", "book", "hat", "lamp")
# Gains and losses, as the question and the solution put them; {n} is the number.
GAINS = (
    ("finds {n} more", "finds {n} more"),
    ("buys {n} more", "buys {n} more"),
    ("gets {n} more from a friend", "gets {n} more"),
    ("wins {n} more in a game", "wins {n} more"),
)
LOSSES = (
    ("gives away {n}", "gives away {n}"),
    ("loses {n}", "loses {n}"),
    ("sells {n}", "sells {n}"),
    ("gives {n} to a neighbour", "gives away {n}"),
)
# Sentences whose number does not matter. None is about a person, so the next "she" or "he" stays clear.
DISTRACTORS = (
    "The school is {n} miles away",
    "There are {n} chairs in the room",
    "The shop is open for {n} hours",
    "It is {n} degrees outside",
)
DISTRACTED_SHARE = 0.2


def gain_and_lose(rng: Random) -> Problem:
    """Somebody has some things, and gains or loses some, two or three times."""
    who, things, total = rng.choice(PEOPLE), rng.choice(THINGS), rng.randint(3, 9)
    asked = [f"{who.name} {rng.choice(('has', 'starts with'))} {total} {things}."]
    steps: list[Step] = []
    for position in range(rng.choice((2, 2, 3))):
        words, sentence, sign, number = _gain_or_loss(rng, total)
        asked.append(f"{f'Then {who.name}' if position else who.pronoun} {words}.")
        left: int | Before = Before(position - 1) if position else total
        steps.append(Step(f"{who.pronoun} {sentence}", left, sign, number))
        total += number if sign == "+" else -number
    asked.append(f"How many {things} does {who.name} have {rng.choice(('now', 'in the end'))}?")
    return Problem("gain_and_lose", " ".join(asked), tuple(steps))


def groups(rng: Random) -> Problem:
    """Equal groups, then a gain or a loss."""
    who, things, holders = rng.choice(PEOPLE), rng.choice(THINGS), rng.choice(HOLDERS)
    number_of_holders, each = rng.randint(2, 4), rng.randint(2, 5)
    words, sentence, sign, number = _gain_or_loss(rng, number_of_holders * each)
    opening = rng.choice(
        (
            f"{who.name} has {number_of_holders} {holders} with {each} {things} each.",
            f"{who.name} fills {number_of_holders} {holders} and puts {each} {things} in each.",
        )
    )
    question = f"{opening} {who.pronoun} {words}. How many {things} does {who.name} have now?"
    held = Step(f"The {holders} hold {{sum}} {things}.", number_of_holders, "*", each)
    return Problem("groups", question, (held, Step(f"{who.pronoun} {sentence}", Before(0), sign, number)))


def compare(rng: Random) -> Problem:
    """One person has more or fewer than another: how many together?"""
    (first, second), things, own = rng.sample(PEOPLE, 2), rng.choice(THINGS), rng.randint(4, 9)
    more = rng.random() < 0.5
    difference = rng.randint(2, 5) if more else rng.randint(2, min(5, own - 2))
    question = (
        f"{first.name} has {own} {things}. {second.name} has {difference} {'more' if more else 'fewer'} than "
        f"{first.name}. How many {things} do {rng.choice(('they', 'the two of them'))} have together?"
    )
    steps = (
        Step(f"{second.name} has {{sum}} {things}.", own, "+" if more else "-", difference),
        Step(f"Together they have {{sum}} {things}.", own, "+", Before(0)),
    )
    return Problem("compare", question, steps)


def times_as_many(rng: Random) -> Problem:
    """One person has several times as many as another: how many together, or how many more?"""
    (first, second), things = rng.sample(PEOPLE, 2), rng.choice(THINGS)
    own, factor = rng.randint(2, 6), rng.randint(2, 4)
    opening = f"{first.name} has {own} {things}. {second.name} has {factor} times as many."
    other = Step(f"{second.name} has {{sum}} {things}.", factor, "*", own)
    if rng.random() < 0.5:
        question = f"{opening} How many {things} do they have together?"
        return Problem(
            "times_as_many", question, (other, Step(f"Together they have {{sum}} {things}.", own, "+", Before(0)))
        )
    question = f"{opening} How many more {things} does {second.name} have than {first.name}?"
    return Problem("times_as_many", question, (other, Step(f"{second.name} has {{sum}} more.", Before(0), "-", own)))


def share(rng: Random) -> Problem:
    """Two amounts are put together and shared equally."""
    who, things = rng.choice(PEOPLE), rng.choice(THINGS)
    friends, each = rng.randint(2, 4), rng.randint(2, 6)
    gained = rng.randint(2, min(5, friends * each - 2))
    start = friends * each - gained
    words, sentence = rng.choice(GAINS)
    question = (
        f"{who.name} has {start} {things}. {who.pronoun} {words.format(n=gained)}. {who.pronoun} shares them equally "
        f"among {friends} friends. How many {things} does each friend get?"
    )
    steps = (
        Step(f"{who.pronoun} {sentence.format(n=gained)}, so {{sum}}.", start, "+", gained),
        Step("Each friend gets {sum}.", Before(0), "/", friends),
    )
    return Problem("share", question, steps)


def shop(rng: Random) -> Problem:
    """Several goods and one more thing are bought: how much is paid, or left?"""
    who, goods, extra = rng.choice(PEOPLE), rng.choice(GOODS), rng.choice(EXTRAS)
    number, price, extra_price = rng.randint(2, 4), rng.randint(2, 5), rng.randint(2, 6)
    bought = f"{who.name} buys {number} {goods} for {price} dollars each and a {extra} for {extra_price} dollars."
    steps = (
        Step(f"The {goods} cost {{sum}} dollars.", number, "*", price),
        Step(f"With the {extra} that is {{sum}} dollars.", Before(0), "+", extra_price),
    )
    if rng.random() < 0.5:
        return Problem("shop", f"{bought} How many dollars does {who.name} pay?", steps)
    purse = number * price + extra_price + rng.randint(2, 6)
    question = f"{who.name} has {purse} dollars. {bought} How many dollars does {who.name} have left?"
    return Problem("shop", question, (*steps, Step(f"{who.pronoun} has {{sum}} left.", purse, "-", Before(1))))


def reading(rng: Random) -> Problem:
    """Pages are read on two days, the second time more or fewer than the first: how many in all?"""
    who, monday = rng.choice(PEOPLE), rng.randint(4, 9)
    first, second = rng.choice((("Monday", "Tuesday"), ("Friday", "Saturday")))
    more = rng.random() < 0.5
    difference = rng.randint(2, 5) if more else rng.randint(2, min(5, monday - 2))
    question = (
        f"{who.name} reads {monday} pages on {first}. On {second} {who.name} reads {difference} "
        f"{'more' if more else 'fewer'} pages than on {first}. How many pages does {who.name} read in all?"
    )
    steps = (
        Step(f"On {second} {who.name} reads {{sum}} pages.", monday, "+" if more else "-", difference),
        Step("In all that is {sum} pages.", monday, "+", Before(0)),
    )
    return Problem("reading", question, steps)


KINDS: tuple[Callable[[Random], Problem], ...] = (gain_and_lose, groups, compare, times_as_many, share, shop, reading)


def draw_problem(rng: Random) -> Problem:
    """A problem of a random kind, sometimes with a sentence that does not matter.

    Args:
        rng: the source of every choice; the same state gives the same problem.
    """
    problem = rng.choice(KINDS)(rng)
    if rng.random() >= DISTRACTED_SHARE:
        return problem
    sentences = problem.question.split(". ")
    aside = rng.choice(DISTRACTORS).format(n=rng.randint(2, 9))
    sentences.insert(rng.randrange(len(sentences)), aside)  # anywhere before the closing question
    return Problem(problem.kind, ". ".join(sentences), problem.steps)


def solve(problem: Problem) -> Solution:
    """The exact solution."""
    return _solve(problem, lambda exact: exact)


def solve_with_slips(problem: Problem, slips: float, rng: Random) -> Solution:
    """A solution in which some results are too high or too low by one, and later steps build on them.

    Args:
        problem: what to solve.
        slips: the probability that a calculation goes wrong, 0 to 1.
        rng: decides which go wrong, and how.
    """

    def hurried(exact: int) -> int:
        if rng.random() >= slips:
            return exact
        return max(0, exact + rng.choice((-1, 1)))

    return _solve(problem, hurried)


def _solve(problem: Problem, write_down: Callable[[int], int]) -> Solution:
    """Goes through the steps; `write_down` turns each exact result into the one written and used later."""
    results: list[int] = []
    sentences: list[str] = []
    for step in problem.steps:
        left = results[step.left.step] if isinstance(step.left, Before) else step.left
        right = results[step.right.step] if isinstance(step.right, Before) else step.right
        results.append(write_down(_calculate(left, step.sign, right)))
        sentences.append(step.sentence.format(sum=f"{left} {step.sign} {right} = {results[-1]}"))
    sentences.append(f"So the answer is {results[-1]}.")
    return Solution(" ".join(sentences), results[-1])


def _calculate(left: int, sign: str, right: int) -> int:
    """The exact result. After a slip a difference may be negative (then 0) or a division inexact (rounded down)."""
    if sign == "+":
        return left + right
    if sign == "-":
        return max(0, left - right)
    if sign == "*":
        return left * right
    return left // right


def _gain_or_loss(rng: Random, total: int) -> tuple[str, str, str, int]:
    """A gain or a loss that leaves some: the question's words, the solution's sentence, the sign and the number."""
    gain = total < 4 or rng.random() < 0.5
    number = rng.randint(2, 5) if gain else rng.randint(2, min(5, total - 1))
    words, sentence = rng.choice(GAINS if gain else LOSSES)
    return words.format(n=number), f"{sentence.format(n=number)}, so {{sum}}.", "+" if gain else "-", number
