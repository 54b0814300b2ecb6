"""How a student is asked. It answers and explains in the same way whether it is evaluated or served."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.generation import generate
from models.student import EXPLAIN, PREDICT, Student
from storage.datasets.definition import Dataset
from storage.datasets.prompts import closing_answer
from tasks.serving.settings import AskingConfig, Question


@dataclass(frozen=True)
class Answered:
    """What a student said to one question.

    Attributes:
        answer: in the dataset's canonical spelling; None if the student's text is not an answer.
        rationale: its explanation, without the answer if both are one text; None if it wrote none.
        rationale_answer: the answer that its explanation itself comes to; None if it comes to none.
        too_long: the question is longer than the student reads, so it was not asked.
    """

    answer: str | None = None
    rationale: str | None = None
    rationale_answer: str | None = None
    too_long: bool = False


def ask(
    dataset: Dataset,
    student: Student,
    questions: Sequence[Question],
    config: AskingConfig,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Answered]:
    """Lets a student answer questions, and explain its answers if it was trained to; always its likeliest text.

    Args:
        dataset: how a question is put and an answer read.
        student: which one.
        questions: one or many.
        config: what is asked for.
        on_progress: called with (texts written, texts in all).

    Returns:
        One for each question, in their order.
    """
    texts = [dataset.student_input(one.question, one.choices) for one in questions]
    lengths = [len(ids) for ids in student.input_ids([EXPLAIN + text for text in texts])]  # the longer prefix
    fitting = [place for place, length in enumerate(lengths) if length <= student.max_input_tokens]
    asked = 2 if config.writes == "answer and rationale" else 1
    done = 0

    def written(prefix: str, longest: int) -> list[str]:
        nonlocal done
        before, total = done, asked * len(fitting)
        found = generate(
            student,
            [prefix + texts[place] for place in fitting],
            max_new_tokens=longest,
            batch_size=config.batch_size,
            on_progress=on_progress and (lambda count, _: on_progress(before + count, total)),
        )
        done += len(fitting)
        return [text.text for text in found]

    nothing: list[str | None] = [None] * len(fitting)
    answers = written(PREDICT, config.answer_tokens) if config.writes != "rationale, then answer" else nothing
    rationales = written(EXPLAIN, student.max_target_tokens) if config.writes != "answer" else nothing
    found = [Answered(too_long=True)] * len(questions)
    for place, answer, rationale in zip(fitting, answers, rationales, strict=True):
        found[place] = _read(dataset, questions[place].choices, answer, rationale)
    return found


def read_answer(dataset: Dataset, text: str, choices: tuple[str, ...]) -> str | None:
    """A student's bare answer in its canonical spelling; a text that says more is read like a teacher's.

    Where a student writes something else than the label, such as an equation, its text is that or no answer.
    """
    answer = dataset.normalise(text.strip(), choices)
    return answer if answer is not None or dataset.target is not None else dataset.parse(text, choices).answer


def _read(dataset: Dataset, choices: tuple[str, ...], answer: str | None, rationale: str | None) -> Answered:
    if rationale is None:
        return Answered(read_answer(dataset, answer or "", choices))
    parsed = dataset.parse(rationale, choices)
    if answer is None:  # one text holds both
        own = parsed.answer if dataset.target is None else read_answer(dataset, closing_answer(rationale), choices)
        return Answered(own, parsed.rationale, own)
    return Answered(read_answer(dataset, answer, choices), rationale, parsed.answer)
