"""The champion at work in a service: it answers questions, and gives way to the next champion without a pause."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from storage.errors import UsageError, one_line
from tasks.cascade.grouping import Grouping
from tasks.cascade.settings import CascadeSettings
from tasks.serving.settings import Question
from tasks.teacher.session import Notice
from tasks.tracking.client import open_tracking
from tasks.tracking.registry import LoadedStudent, Registered, champion_of, load_registered


@dataclass(frozen=True)
class Guess:
    """What the champion says to a question.

    Attributes:
        answer: None if it gave none.
        rationale: that comes with it.
        confidence: the probability that the answer is right; None without one, or where it was not calibrated.
        abstains: it is not sure enough.
        version: the champion's.
    """

    answer: str | None
    rationale: str | None
    confidence: float | None
    abstains: bool
    version: str


class Champion:
    """The registered champion, loaded.

    Args:
        home: the state folder.
        name: the registered model's name.
        settings: when it abstains, and how often the registry is looked at.
        notice: called with sentences that say what is going on.

    Raises:
        UnknownName: there is no champion.
        UsageError: nothing says when it abstains.
    """

    def __init__(self, home: Path, name: str, settings: CascadeSettings, notice: Notice) -> None:
        self._home, self._name, self._settings, self._notice = home, name, settings, notice
        self._student = self._load()
        self._answering: Grouping[Question, Guess] = Grouping(
            self._answer, "the champion", settings.batch, settings.queue
        )
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._answering.__aenter__()
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._answering.__aexit__()

    @property
    def registered(self) -> Registered:
        """Which version answers now."""
        return self._student.registered

    @property
    def most(self) -> int:
        """Questions that may wait for it."""
        return self._settings.queue

    @property
    def waiting(self) -> int:
        """Questions that wait for it."""
        return self._answering.waiting

    async def answer(self, question: Question) -> Guess:
        """What it says to a question.

        Raises:
            Overloaded: too many questions wait.
            UsageError: it cannot be asked that.
        """
        return await self._answering.do(question)

    def guesses(self, questions: Sequence[Question]) -> list[Guess]:
        """What it says to questions, here and now.

        Raises:
            UsageError: it cannot be asked one of them.
        """
        student, below = self._student, self._settings.below
        asked = [{"question": one.question, "choices": list(one.choices)} for one in questions]
        found = []
        for row in student.predict(asked, guesses=True):
            answer, rationale, confidence = row["answer"], row["rationale"], row["confidence"]
            unsure = row["abstained"] if below is None else (confidence or 0.0) < below
            found.append(Guess(answer, rationale, confidence, unsure or answer is None, student.registered.version))
        return found

    def _load(self) -> LoadedStudent:
        student = load_registered(self._home, self._name)
        abstains = {"qcrd.risk", "qcrd.refuses_below"} & student.registered.tags.keys()
        if self._settings.below is None and not abstains:
            raise UsageError(
                f"{self._name} version {student.registered.version} promises nothing, so nothing says when to ask "
                "the teacher: distil with registry.risk=0.05, or set cascade.below, the least confidence, such as 0.9."
            )
        return student

    def _answer(self, questions: Sequence[Question]) -> list[Guess | Exception]:
        try:
            return [*self.guesses(questions)]
        except UsageError:  # one of them cannot be answered; whoever asked the others has done nothing wrong
            found: list[Guess | Exception] = []
            for one in questions:
                try:
                    found += self.guesses([one])
                except UsageError as error:
                    found.append(error)
            return found

    async def _look(self) -> None:
        """Takes the next champion, as soon as there is one."""
        told = ""
        while True:
            await asyncio.sleep(self._settings.look_s)
            try:
                await asyncio.to_thread(self._take_the_newest)
                told = ""
            except Exception as error:  # whatever is wrong with the new one, the old one answers
                line = f"Version {self.registered.version} goes on: {one_line(error)}."
                if line != told:
                    self._notice(line)
                told = line

    def _take_the_newest(self) -> None:
        champion = champion_of(open_tracking(self._home), self._name)
        if champion is not None and champion.version != self.registered.version:
            self._student = self._load()
            self._notice(f"{self._name} version {self.registered.version} is the champion now.")
