"""What a run may pay its teacher: how many questions that buys, and where it ends.

A budget of tokens or money is never exceeded by what the endpoint answers. Before a request is sent, the most that it
may cost is set aside: its prompt at a token a byte, and `max_tokens` for each sample. It is sent only if that still
fits; when the reply is there, what it did cost takes the place of what was set aside. So near the end fewer requests
are under way, and the last ones leave a rest of less than one request's most.
"""

import asyncio
import math
from collections.abc import Callable
from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.teacher_api import TeacherReply, TeacherRequest
from models.teacher_settings import SamplingConfig
from storage.datasets.definition import Dataset
from storage.schemas import EXAMPLES, RATIONALES
from storage.store import Store

AROUND_A_PROMPT = 256
"""Tokens that a chat template may put around a prompt."""
Cost = Callable[[int | None, int | None, int | None], float | None]
"""What prompt tokens, completion tokens (thoughts included) and reasoning tokens cost; None if that is not known."""


class Budget(BaseModel):
    """The most that one run may ask of its teacher."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    questions: int | None = Field(default=None, ge=1, description="Questions that may be asked.")
    tokens: int | None = Field(default=None, ge=1, description="Tokens, of prompts and completions, that may be paid.")
    money: float | None = Field(default=None, gt=0, description="What may be paid, by `price`.")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if sum(one is not None for one in (self.questions, self.tokens, self.money)) != 1:
            raise ValueError("a budget is one of questions, tokens and money")
        return self

    @property
    def limit(self) -> float | None:
        """The most tokens or money; None of a budget of questions."""
        return self.tokens if self.tokens is not None else self.money

    def __str__(self) -> str:
        if self.questions is not None:
            return f"{self.questions:,} questions"
        return f"{self.tokens:,} tokens" if self.tokens is not None else f"{self.money:g} (teacher.price)"


def tokens_of(prompt: int | None, completion: int | None, reasoning: int | None) -> float | None:  # noqa: ARG001
    """The cost where tokens are counted."""
    return None if prompt is None or completion is None else float(prompt + completion)


class Purse:
    """Lets requests through while they can be paid.

    Args:
        limit: the most that may be spent, in the unit of `cost`.
        cost: of some tokens.
        sampling: how the teacher is sampled.
        spent: what has been paid before.

    Attributes:
        spent: what has been paid; a reply that does not tell its tokens counts as much as it may have cost.
        exhausted: whether a request was not let through.
    """

    def __init__(self, limit: float, cost: Cost, sampling: SamplingConfig, spent: float = 0.0) -> None:
        self.limit, self.spent, self.exhausted = limit, spent, False
        self._cost, self._sampling = cost, sampling
        self._held = 0.0
        self._changed = asyncio.Condition()

    def most(self, request: TeacherRequest) -> float:
        """The most that a request may cost."""
        return most_cost(self._cost, self._sampling, request.plain, request.messages, request.n)

    async def admit(self, request: TeacherRequest) -> bool:
        """Sets aside what a request may cost; waits for others under way where only they stand in the way.

        Returns:
            False if it cannot be paid; from then on nothing is let through.
        """
        most = self.most(request)
        async with self._changed:
            while not self.exhausted and self.spent + self._held + most > self.limit:
                if not self._held:
                    self.exhausted = True
                    break
                await self._changed.wait()
            if self.exhausted:
                self._changed.notify_all()
                return False
            self._held += most
            return True

    def spend(self, reply: TeacherReply) -> None:
        """Takes the cost of a reply that nobody asked for: to find out whether the endpoint answers others, while what
        was set aside for the request in doubt still covers it."""
        self.spent += self._cost(reply.prompt_tokens, reply.completion_tokens, reply.reasoning_tokens) or 0.0

    async def settle(self, request: TeacherRequest, reply: TeacherReply | None) -> None:
        """Takes the cost of what was let through; None: it brought nothing."""
        most = self.most(request)
        async with self._changed:
            self._held = max(0.0, self._held - most)
            if reply is not None:
                cost = self._cost(reply.prompt_tokens, reply.completion_tokens, reply.reasoning_tokens)
                self.spent += most if cost is None else cost
            self._changed.notify_all()


def most_cost(cost: Cost, sampling: SamplingConfig, plain: str, messages: list[dict[str, str]], samples: int) -> float:
    """The most that a request for some samples may cost.

    Raises:
        ValueError: the price says nothing of it.
    """
    texts = [plain] if sampling.api == "completions" else [one["content"] for one in messages]
    prompt = sum(len(text.encode()) for text in texts) + AROUND_A_PROMPT
    completion = samples * sampling.max_tokens
    found = [one for thoughts in (0, completion) if (one := cost(prompt, completion, thoughts)) is not None]
    if not found:
        raise ValueError("teacher.price gives no price")
    return max(found)


def paid_before(
    store: Store, dataset: Dataset, split: str, made_by: str | datetime, cost: Cost, sampling: SamplingConfig
) -> float:
    """What has been paid for stored samples, at most: which of them shared a request is not known, so each counts its
    prompt.

    Args:
        made_by: the id of the run that made them, or since when they were made.
    """
    which = "run_id" if isinstance(made_by, str) else "r.created_at"
    sign = "=" if isinstance(made_by, str) else ">="
    here = {"dataset": dataset.name, "split": split}
    with store.connect() as con:
        rows = store.execute(
            con,
            "SELECT question, choices, prompt_tokens, completion_tokens, "
            "coalesce(reasoning_tokens, CASE WHEN thought IS NULL THEN 0 END) AS reasoning_tokens FROM "
            f"{store.relation(RATIONALES, {**here, 'source': 'teacher'})} r JOIN "
            f"{store.relation(EXAMPLES, here)} USING (example_id) WHERE {which} {sign} $1",
            [made_by],
        ).to_pylist()
    spent = 0.0
    for row in rows:
        known = cost(row["prompt_tokens"], row["completion_tokens"], row["reasoning_tokens"])
        if known is None:
            prompt = dataset.teacher_prompt(row["question"], tuple(row["choices"]))
            known = most_cost(cost, sampling, prompt.plain, prompt.messages(), 1)
        spent += known
    return spent


def affordable(
    store: Store, dataset: Dataset, split: str, model: str, budget: Budget, cost: Cost, n: int
) -> int | None:
    """How many questions a budget buys, by what this teacher's stored samples took on average; None if there are none,
    or they do not tell.

    Args:
        model: the teacher's name.
        n: samples of a question.
    """
    if budget.limit is None:
        return budget.questions
    here = {"dataset": dataset.name, "split": split, "source": "teacher"}
    with store.connect() as con:
        [row] = store.execute(
            con,
            "SELECT avg(prompt_tokens) AS prompt, avg(completion_tokens) AS completion, "
            f"coalesce(avg(reasoning_tokens), 0) AS reasoning FROM {store.relation(RATIONALES, here)} WHERE model = $1",
            [model],
        ).to_pylist()
    if row["prompt"] is None or row["completion"] is None:
        return None
    one = cost(math.floor(row["prompt"]), math.floor(n * row["completion"]), math.floor(n * row["reasoning"]))
    return math.ceil(budget.limit / one) if one else None
