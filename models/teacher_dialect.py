"""How one endpoint wants to be asked, as far as that differs from OpenAI's API of old.

Reasoning models take `max_completion_tokens` and no temperature, some endpoints give one choice a request, others know
no seeds or no system role. What a refusal says clearly is learnt, once, and the request is made again; what it does not
say can be set (`teacher.extra_body`, `teacher.instruction`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.teacher_refusals import Refusal
from models.teacher_settings import SamplingConfig

MOST_SEED = 2**31 - 1  # what 32 bits with a sign hold
LONE_N = re.compile(r"\bn\b(?=\W{0,3}(?:must|should|parameter|values?|[>=<:]|is|to\b|greater|larger|more))")
UNSUPPORTED = re.compile(
    r"unsupported|not (?:be )?(?:support|permit|allow|accept|available|a valid|valid|recogni)\w*|n't (?:support|accept|"
    r"allow)\w*|un(?:known|expected|recogni\w+)|extra (?:inputs|fields)|only the default|deprecated|additional propert",
    re.IGNORECASE,
)
OUT_OF_RANGE = re.compile(
    r"between|less than|greater than|at (?:most|least)|range|[<>]=?\s?\d|maximum|minimum", re.IGNORECASE
)
ONLY_ONE = re.compile(
    r"\(1\)|only (?:a )?(?:value|temperature)?\W{0,4}(?:of )?1(?:\.0)?\b|must be 1(?:\.0)?\b", re.IGNORECASE
)
ONE_CHOICE = re.compile(
    r"(?:one|1|single) (?:choice|candidate|completion|generation)|candidate.?count|"
    r"(?:multiple|several) (?:choices|candidates|completions)",
    re.IGNORECASE,
)
MOST_CHOICES = re.compile(
    r"(?:at most|less than or equal to|no (?:more|greater) than|<=|maximum (?:of|is)|up to)\W{0,3}(\d{1,4})\b"
)
NO_SYSTEM = re.compile(
    r"(?:\bno\b|not\b|n't\b|\bun).{0,40}\bsystem\b.{0,20}(?:role|message|prompt|instruction)|"
    r"\bsystem\b.{0,20}(?:role|message|prompt|instruction).{0,40}(?:\bno\b|not\b|n't\b|\bun)|"
    r"developer instruction is not enabled|roles must alternate|(?:role|messages).{0,60}must be.{0,30}\buser\b",
    re.IGNORECASE,
)


@dataclass
class Dialect:
    """How an endpoint is asked.

    Attributes:
        left_out: fields that are not sent.
        most_choices: samples it gives in one request; None: as many as are asked for.
        small_seeds: whether a seed must fit 31 bits.
        length: the field that bounds a sample's tokens.
        only_temperature: the only one that it takes.
        instruction: the role of the message with the instruction.
    """

    left_out: set[str] = field(default_factory=set)
    most_choices: int | None = None
    small_seeds: bool = False
    length: str = "max_tokens"
    only_temperature: float | None = None
    instruction: str = "system"

    @classmethod
    def of(cls, sampling: SamplingConfig) -> "Dialect":
        """What the settings say beforehand."""
        left_out = {name for name, value in sampling.extra_body.items() if value is None}
        return cls(left_out, 1 if "n" in left_out else None, instruction=sampling.instruction)

    def body(self, standard: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
        """A request's body as this endpoint takes it.

        Args:
            standard: from `models.teacher_api.request_body`.
            extra: the settings' own fields.
        """
        body = dict(standard)
        body[self.length] = body.pop("max_tokens")
        if self.only_temperature is not None:
            body["temperature"] = self.only_temperature
        if self.small_seeds:
            body["seed"] %= MOST_SEED + 1
        if self.instruction == "user" and "messages" in body:
            body["messages"] = without_system(body["messages"])
        body |= extra
        return {name: value for name, value in body.items() if name not in self.left_out}

    def learn(self, refusal: Refusal, sent: Mapping[str, Any]) -> str | None:
        """Learns from a refusal what to ask differently.

        Args:
            sent: the body that was refused.

        Returns:
            What was learnt, for people; empty where another request's refusal taught it already; None where the refusal
            teaches nothing, so that sending the request again would not help.
        """
        if refusal.status not in (400, 422, 501):
            return None
        before = (set(self.left_out), self.most_choices, self.small_seeds, self.length, self.only_temperature,
                  self.instruction)  # fmt: skip
        learnt = self._learn(refusal, sent)
        after = (self.left_out, self.most_choices, self.small_seeds, self.length, self.only_temperature,
                 self.instruction)  # fmt: skip
        return learnt if learnt is None or before != after else ""

    def _learn(self, refusal: Refusal, sent: Mapping[str, Any]) -> str | None:
        words = refusal.words
        unsupported = bool(UNSUPPORTED.search(words))
        if "max_tokens" in sent and "max_completion_tokens" in words:
            self.length = "max_completion_tokens"
            return "max_completion_tokens instead of max_tokens"
        if sent.get("n", 1) > 1 and (_names(refusal, "n") or ONE_CHOICE.search(words)):
            found = MOST_CHOICES.search(words)
            most = int(found.group(1)) if found else 1
            self.most_choices = most if 1 <= most < sent["n"] else 1
            return (
                "one sample a request" if self.most_choices == 1 else f"at most {self.most_choices} samples a request"
            )
        if "seed" in sent and _names(refusal, "seed"):
            if sent["seed"] > MOST_SEED and not unsupported:
                self.small_seeds = True
                return "seeds of 31 bits"
            return self._leave_out("seed", "no seeds, so the same samples cannot be made again")
        if "top_p" in sent and _names(refusal, "top_p") and (unsupported or sent["top_p"] == 1):
            return self._leave_out("top_p", f"no top_p, so {sent['top_p']:g} has no effect")
        if (
            "temperature" in sent
            and _names(refusal, "temperature")
            and ("default" in words.lower() or not OUT_OF_RANGE.search(words))
        ):
            if ONLY_ONE.search(words) and sent["temperature"] != 1:
                self.only_temperature = 1.0
                return f"no temperature but 1, so {sent['temperature']:g} has no effect"
            if unsupported or ONLY_ONE.search(words):
                return self._leave_out("temperature", f"no temperature, so {sent['temperature']:g} has no effect")
        for name in ("n", "stop", "logprobs"):
            if name in sent and unsupported and _names(refusal, name):
                return self._leave_out(name, f"no {name}")
        if NO_SYSTEM.search(words) and any(message["role"] == "system" for message in sent.get("messages", ())):
            self.instruction = "user"
            return "no system role, so the instruction stands in the first question"
        return None

    def _leave_out(self, name: str, what: str) -> str:
        self.left_out.add(name)
        return what


def _names(refusal: Refusal, name: str) -> bool:
    """Whether a refusal finds fault with a field of the request."""
    if name in refusal.fields:
        return True
    if re.search(rf"['\"`.]{name}['\"`]", refusal.words):
        return True
    # A word of its own may also be the question's.
    faulty = UNSUPPORTED.search(refusal.words) or OUT_OF_RANGE.search(refusal.words) or ONLY_ONE.search(refusal.words)
    return bool(faulty and (LONE_N if name == "n" else re.compile(rf"\b{name}\b")).search(refusal.words))


def without_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Chat messages with what the system says in front of what the user says first."""
    told = [message["content"] for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    if not told or not rest:
        return messages
    return [{**rest[0], "content": "\n\n".join((*told, rest[0]["content"]))}, *rest[1:]]
