"""The cascade: the champion answers what it is sure of, the teacher the rest, within a budget."""

from typing import Any, Literal

from pydantic import BaseModel

from models.errors import ModelError
from storage.errors import StorageError, UsageError
from tasks.cascade.champion import Champion, Guess
from tasks.cascade.desk import Desk, OverBudget
from tasks.cascade.grouping import Overloaded
from tasks.serving.settings import Question

By = Literal["student", "teacher", "nobody"]


class Given(BaseModel):
    """The answer to a question.

    Attributes:
        by: who gave it; nobody where the student is not sure and the teacher was not, or could not be, asked.
        answer: None from nobody.
        rationale: that comes to it; None from nobody, or from a student that writes none.
        confidence: the student's, that its own answer is right; None if it has none.
        share: the teacher's votes for its answer; None where it was not asked.
        abstained: nobody answered.
        why: nobody did, in one line.
        example_id: of the stored question, where it was passed on.
        version: the student's.
    """

    by: By
    answer: str | None = None
    rationale: str | None = None
    confidence: float | None = None
    share: float | None = None
    abstained: bool = False
    why: str | None = None
    example_id: str | None = None
    version: str


def by_student(guess: Guess) -> Given:
    """The answer that the champion is sure of."""
    return Given(
        by="student",
        answer=guess.answer,
        rationale=guess.rationale,
        confidence=guess.confidence,
        version=guess.version,
    )


async def by_teacher(desk: Desk, question: Question, guess: Guess, *, patient: bool = False) -> Given:
    """The answer to a question that the champion abstains from: the teacher's, if it can be asked.

    Args:
        patient: wait as long as that takes.
    """
    about: dict[str, Any] = {"confidence": guess.confidence, "version": guess.version}
    try:
        voted = await desk.pass_on(question, patient=patient)
    except TimeoutError:
        why = "the teacher takes too long; what it says will be stored"
    except (OverBudget, Overloaded, UsageError) as error:
        why = str(error)
    except (ModelError, StorageError, OSError):  # the desk says more, but not to whoever asks
        why = "the teacher cannot be asked now"
    else:
        about |= {"share": voted.share, "example_id": voted.example_id}
        if voted.answer is not None:
            return Given(by="teacher", answer=voted.answer, rationale=voted.rationale, **about)
        why = "no sample of the teacher's has an answer that counts"
    return Given(by="nobody", abstained=True, why=why, **about)


class Cascade:
    """Answers questions.

    Args:
        champion: who is asked first.
        desk: the teacher's.
    """

    def __init__(self, champion: Champion, desk: Desk) -> None:
        self.champion, self.desk = champion, desk

    async def answer(self, question: Question) -> Given:
        """The answer to a question, from whoever can give it.

        Raises:
            Overloaded: too many questions wait for the champion.
            UsageError: the champion cannot be asked that.
        """
        guess = await self.champion.answer(question)
        return await by_teacher(self.desk, question, guess) if guess.abstains else by_student(guess)
