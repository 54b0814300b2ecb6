"""Renders questions for teachers and students.

Both read a question the same way: the question and, below it, each choice on a line with its letter. A teacher's
reply ends with a sentence that the parsers know: "So the answer is (c) lawn."
"""

from collections.abc import Callable, Sequence

from storage.datasets.definition import Exemplar, Prompt

CLOSING = "So the answer is "
STOP = ("\nQ:", "\n\nQ ")  # where a completions model would begin to invent the next question
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def render_question(question: str, choices: Sequence[str] = ()) -> str:
    """The question with its lettered choices, as teacher and student read it."""
    if not choices:
        return question
    lines = [f"({letter_of(index)}) {choice}" for index, choice in enumerate(choices)]
    return "\n".join([question, "Answer choices:", *lines])


def letter_of(index: int) -> str:
    """a, b, c ...; after z, the position as a number, counted from 1."""
    return _LETTERS[index] if index < len(_LETTERS) else str(index + 1)


def render_reply(exemplar: Exemplar) -> str:
    """A teacher's reply: the rationale and the closing answer statement."""
    answer = exemplar.answer
    if exemplar.choices:
        answer = f"({letter_of(exemplar.choices.index(exemplar.answer))}) {exemplar.answer}"
    return with_answer(exemplar.rationale, answer)


def with_answer(rationale: str, answer: str | None) -> str:
    """A rationale and the closing answer statement."""
    return f"{rationale} {CLOSING}{answer}."


def closing_answer(text: str) -> str:
    """What the closing statement of a text names, with its full stop; the whole text if it has none."""
    return text.rpartition(CLOSING)[2]


def few_shot(instruction: str, exemplars: Sequence[Exemplar]) -> Callable[[str, tuple[str, ...]], Prompt]:
    """A dataset's prompt template: a function from (question, choices) to a `Prompt`.

    The plain form is "Q: ...\\nA: <rationale> So the answer is X." for each exemplar, then the question and "A:".

    Raises:
        ValueError: an exemplar's answer is not among its choices.
    """
    turns = tuple((render_question(item.question, item.choices), render_reply(item)) for item in exemplars)
    head = "".join(
        [f"{instruction}\n\n" if instruction else "", *(f"Q: {asked}\nA: {replied}\n\n" for asked, replied in turns)]
    )

    def prompt(question: str, choices: tuple[str, ...]) -> Prompt:
        rendered = render_question(question, choices)
        return Prompt(system=instruction, turns=turns, question=rendered, plain=f"{head}Q: {rendered}\nA:", stop=STOP)

    return prompt
