"""The lab's word problems: each kind of problem is one small function that writes a question and solves it.

A kind draws people, things and numbers, and returns a `Problem`: the question in plain English, the solver's
steps in plain English and the exact integer answer. Every question takes two to four additions, subtractions,
multiplications or exact divisions of small whole numbers; no result is below 0 or above 99. Some questions
carry a sentence with a number that does not matter.

Change anything here that changes a text, and raise `PROBLEM_VERSION`: stored examples and the cached teacher
belong to the version they were made with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

PROBLEM_VERSION = 1


@dataclass(frozen=True)
class Problem:
    """One word problem with its solution.

    Attributes:
        kind: which function of this file wrote it.
        question: the problem, one paragraph that ends with a question mark.
        steps: the solver's sentences in order, each with at most one calculation, without the answer sentence.
        answer: the exact answer.
    """

    kind: str
    question: str
    steps: tuple[str, ...]
    answer: int

    @property
    def solution(self) -> str:
        """The steps as one paragraph that ends "So the answer is N."."""
        return " ".join([*self.steps, f"So the answer is {self.answer}."])


@dataclass(frozen=True)
class Person:
    """Somebody in a problem: a name and the pronoun that starts a sentence about them."""

    name: str
    pronoun: str


@dataclass(frozen=True)
class Thing:
    """Something that can be counted, in both numbers."""

    one: str
    many: str

    def count(self, number: int) -> str:
        """The number with the right form of the word: "1 apple", "2 apples"."""
        return f"{number} {self.one if number == 1 else self.many}"


PEOPLE = tuple(
    [Person(name, "She") for name in ("Ann", "Mia", "Zoe", "Lucy", "Nora", "Ella", "Ruth", "Ivy")]
    + [Person(name, "He") for name in ("Ben", "Tom", "Sam", "Leo", "Max", "Paul", "Hugo", "Finn")]
)
THINGS = tuple(
    Thing(one, one + "s")
    for one in ("apple", "marble", "pencil", "sticker", "shell", "stamp", "button", "card", "coin", "balloon")
)
HOLDERS = (Thing("bag", "bags"), Thing("box", "boxes"), Thing("basket", "baskets"), Thing("jar", "jars"))
GOODS = (
    Thing("pen", "pens"),
    Thing("ruler", "rulers"),
    Thing("muffin", "muffins"),
    Thing("ticket", "tickets"),
    Thing("candle", "candles"),
)
EXTRAS = ("bag", "book", "hat", "lamp")

# How a number of things is won or lost: (in the question, in the solution). {n} is the number.
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
# Sentences whose number does not matter. None is about a person, so that the next "she" or "he" stays clear.
DISTRACTORS = (
    "The school is {n} miles away",
    "There are {n} chairs in the room",
    "The shop is open for {n} hours",
    "It is {n} degrees outside",
)
DISTRACTED_SHARE = 0.25


def _small(rng: Random) -> int:
    """A number of things to win, lose or differ by."""
    return rng.randint(2, 9)


def _start(rng: Random) -> int:
    """A number of things to begin with."""
    return rng.randint(5, 20)


def _two_people(rng: Random) -> tuple[Person, Person]:
    first, second = rng.sample(PEOPLE, 2)
    return first, second


def _change(rng: Random, total: int, gain: bool) -> tuple[str, str, int, int]:
    """One gain or loss: the words for the question, those for the solution, the number, the new total."""
    number = _small(rng) if gain else rng.randint(2, min(9, total - 1))
    asked, told = rng.choice(GAINS if gain else LOSSES)
    return asked.format(n=number), told.format(n=number), number, total + number if gain else total - number


def gain_and_lose(rng: Random) -> Problem:
    """Somebody has some things and wins or loses some, two or three times."""
    who, thing = rng.choice(PEOPLE), rng.choice(THINGS)
    total = _start(rng)
    asked = [rng.choice((f"{who.name} has {total} {thing.many}.", f"{who.name} starts with {total} {thing.many}."))]
    steps = [f"{who.name} starts with {total} {thing.many}."]
    for position in range(rng.choice((2, 2, 3))):
        gain = total < 6 or rng.random() < 0.5
        question_words, solution_words, number, after = _change(rng, total, gain)
        asked.append(f"{'Then ' + who.name if position else who.pronoun} {question_words}.")
        steps.append(f"{who.pronoun} {solution_words}, so {total} {'+' if gain else '-'} {number} = {after}.")
        total = after
    asked.append(
        rng.choice(
            (
                f"How many {thing.many} does {who.name} have now?",
                f"How many {thing.many} does {who.name} have in the end?",
            )
        )
    )
    return Problem("gain_and_lose", " ".join(asked), tuple(steps), total)


def groups(rng: Random) -> Problem:
    """Equal groups, then a gain or a loss."""
    who, thing, holder = rng.choice(PEOPLE), rng.choice(THINGS), rng.choice(HOLDERS)
    holders, each = rng.randint(2, 6), rng.randint(2, 9)
    total = holders * each
    gain = total < 6 or rng.random() < 0.5
    question_words, solution_words, number, after = _change(rng, total, gain)
    opening = rng.choice(
        (
            f"{who.name} has {holder.count(holders)} with {each} {thing.many} each.",
            f"{who.name} fills {holder.count(holders)} and puts {each} {thing.many} in each.",
        )
    )
    question = f"{opening} {who.pronoun} {question_words}. How many {thing.many} does {who.name} have now?"
    steps = (
        f"The {holder.many} hold {holders} * {each} = {total} {thing.many}.",
        f"{who.pronoun} {solution_words}, so {total} {'+' if gain else '-'} {number} = {after}.",
    )
    return Problem("groups", question, steps, after)


def compare(rng: Random) -> Problem:
    """Two people, one has more or fewer; how many together."""
    (first, second), thing = _two_people(rng), rng.choice(THINGS)
    own, difference = _start(rng), 0
    more = rng.random() < 0.5
    difference = _small(rng) if more else rng.randint(2, min(9, own - 2))
    other = own + difference if more else own - difference
    question = (
        f"{first.name} has {own} {thing.many}. {second.name} has {difference} {'more' if more else 'fewer'} than "
        f"{first.name}. How many {thing.many} do {rng.choice(('they', 'the two of them'))} have together?"
    )
    steps = (
        f"{second.name} has {own} {'+' if more else '-'} {difference} = {other} {thing.many}.",
        f"Together they have {own} + {other} = {own + other} {thing.many}.",
    )
    return Problem("compare", question, steps, own + other)


def times_as_many(rng: Random) -> Problem:
    """One person has some times as many as another; how many together, or how many after a gift."""
    (first, second), thing = _two_people(rng), rng.choice(THINGS)
    own, factor = rng.randint(3, 9), rng.randint(2, 5)
    other = own * factor
    opening = f"{first.name} has {own} {thing.many}. {second.name} has {factor} times as many."
    step = f"{second.name} has {factor} * {own} = {other} {thing.many}."
    if rng.random() < 0.5:
        question = f"{opening} How many {thing.many} do they have together?"
        last = f"Together they have {own} + {other} = {own + other} {thing.many}."
        return Problem("times_as_many", question, (step, last), own + other)
    question = f"{opening} How many more {thing.many} does {second.name} have than {first.name}?"
    last = f"{second.name} has {other} - {own} = {other - own} more."
    return Problem("times_as_many", question, (step, last), other - own)


def share(rng: Random) -> Problem:
    """Two amounts are put together and shared equally."""
    who, thing = rng.choice(PEOPLE), rng.choice(THINGS)
    friends, each = rng.randint(2, 6), rng.randint(2, 9)
    total = friends * each
    number = rng.randint(2, min(9, total - 2))
    start = total - number
    question_words, solution_words = rng.choice(GAINS)
    question = (
        f"{who.name} has {thing.count(start)}. {who.pronoun} {question_words.format(n=number)}. "
        f"{who.pronoun} shares them equally among {friends} friends. How many {thing.many} does each friend get?"
    )
    steps = (
        f"{who.pronoun} {solution_words.format(n=number)}, so {start} + {number} = {total}.",
        f"Each friend gets {total} / {friends} = {each}.",
    )
    return Problem("share", question, steps, each)


def shop(rng: Random) -> Problem:
    """Some goods at a price each and one more thing are bought; what is paid, or what is left."""
    who, good, extra = rng.choice(PEOPLE), rng.choice(GOODS), rng.choice(EXTRAS)
    number, price, extra_price = rng.randint(2, 6), rng.randint(2, 6), rng.randint(3, 12)
    goods_cost = number * price
    cost = goods_cost + extra_price
    bought = (
        f"{who.name} buys {good.count(number)} for {price} dollars each and a {extra} for {extra_price} dollars."
    )
    steps = [
        f"The {good.many} cost {number} * {price} = {goods_cost} dollars.",
        f"With the {extra} that is {goods_cost} + {extra_price} = {cost} dollars.",
    ]
    if rng.random() < 0.5:
        return Problem("shop", f"{bought} How many dollars does {who.name} pay?", tuple(steps), cost)
    purse = cost + rng.randint(2, 15)
    steps.append(f"{who.pronoun} has {purse} - {cost} = {purse - cost} left.")
    question = f"{who.name} has {purse} dollars. {bought} How many dollars does {who.name} have left?"
    return Problem("shop", question, tuple(steps), purse - cost)


def reading(rng: Random) -> Problem:
    """Pages read on three days, one told by its difference from the day before."""
    who = rng.choice(PEOPLE)
    monday, tuesday = _start(rng), rng.randint(5, 15)
    more = rng.random() < 0.5
    difference = _small(rng) if more else rng.randint(2, min(9, tuesday - 2))
    wednesday = tuesday + difference if more else tuesday - difference
    two_days = monday + tuesday
    question = (
        f"{who.name} reads {monday} pages on Monday and {tuesday} pages on Tuesday. On Wednesday {who.name} reads "
        f"{difference} {'more' if more else 'fewer'} pages than on Tuesday. How many pages does {who.name} read in all?"
    )
    steps = (
        f"On Wednesday {who.name} reads {tuesday} {'+' if more else '-'} {difference} = {wednesday} pages.",
        f"On Monday and Tuesday that is {monday} + {tuesday} = {two_days} pages.",
        f"In all that is {two_days} + {wednesday} = {two_days + wednesday} pages.",
    )
    return Problem("reading", question, steps, two_days + wednesday)


KINDS: tuple[Callable[[Random], Problem], ...] = (gain_and_lose, groups, compare, times_as_many, share, shop, reading)


def draw_problem(rng: Random) -> Problem:
    """One problem of a random kind, now and then with a sentence that does not matter.

    Args:
        rng: where every choice comes from; the same state gives the same problem.
    """
    problem = rng.choice(KINDS)(rng)
    if rng.random() >= DISTRACTED_SHARE:
        return problem
    sentences = problem.question.split(". ")
    aside = rng.choice(DISTRACTORS).format(n=rng.randint(3, 19))
    sentences.insert(rng.randrange(len(sentences)), aside)  # anywhere before the closing question
    return Problem(problem.kind, ". ".join(sentences), problem.steps, problem.answer)
