"""What an endpoint's refusal means, in one line that says what to do; and what must never be in that line."""

import base64
import difflib
import email.utils
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self
from urllib.parse import quote_plus

from models.errors import TeacherFailed

KEY_VARIABLES = ("QCRD_TEACHER_API_KEY", "OPENAI_API_KEY")  # looked at in this order
LONGEST_QUOTE = 300  # characters of an endpoint's own words in one of our messages

# How vLLM, SGLang, TGI, llama.cpp and the hosted ones say that a prompt does not fit, over the message or the code.
TOO_LONG = re.compile(
    r"maximum context length|context_length_exceeded|context window|longer than the (?:model's|maximum|context)|"
    r"prompt is too long|exceeds? the (?:available context|maximum number of tokens|model's)|"
    r"input token count|\binputs\W{1,3}tokens?\b.{0,40}must be <=",
    re.IGNORECASE,
)
FILTERED = re.compile(
    r"content_filter|content_policy|content management policy|content exists risk|data_inspection_failed|"
    r"invalid_prompt|requires moderation|(?:input|prompt|content|request|message)\b.{0,60}"
    r"\b(?:flagged|moderat\w+|inappropriate|violat\w+|harmful|unsafe|sensitive)",
    re.IGNORECASE,
)
# A 429 that waiting does not mend: codes of OpenAI's, and what is allowed in a day.
NO_QUOTA = re.compile(r"\b(?:insufficient_quota|billing_hard_limit\w*)\b", re.IGNORECASE)
DAILY = re.compile(r"per.?day|daily|\b[RT]PD\b", re.IGNORECASE)
BY_THE_MINUTE = re.compile(r"per.?minute|per.?second|\b[RT]PM\b", re.IGNORECASE)
RATE_LIMITED = re.compile(r"rate.?limit|too many requests|quota|overloaded|resource.?exhausted", re.IGNORECASE)
_WAIT = re.compile(
    r"(?:retry|try again|wait|retryDelay)\W{0,4}(?:in|after|for)?\W{0,3}"
    r"((?:\d{1,9}(?:\.\d{1,9})?\s?(?:ms|milliseconds?|h|hours?|m|min|minutes?|s|sec|seconds?)\b\s?|"
    r"\d{1,9}h(?=\d)|\d{1,9}m(?=\d)){1,3})",
    re.IGNORECASE,
)
_TIME = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s?(ms|milli|h|m|s)", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "milli": 0.001, "h": 3600.0, "m": 60.0, "s": 1.0}


class RequestRefused(TeacherFailed):
    """One request cannot be answered (its prompt is too long, or filtered, or it always fails); others can.

    Attributes:
        request_id: which one.
    """

    def __init__(self, request_id: str, reason: str) -> None:
        super().__init__(f"request {request_id}: {reason}")
        self.request_id = request_id
        self.reason = reason


@dataclass(frozen=True)
class TeacherKey:
    """An endpoint's key, and where somebody would change it.

    Attributes:
        value: the key; empty for none.
        place: what to do about a wrong one, as in "set QCRD_TEACHER_API_KEY to a key it accepts".
    """

    value: str = field(repr=False)
    place: str

    @classmethod
    def of_environment(cls) -> Self:
        """The first of `KEY_VARIABLES` that is set."""
        value = next((os.environ[name].strip() for name in KEY_VARIABLES if os.environ.get(name, "").strip()), "")
        return cls(value, f"set {KEY_VARIABLES[0]} (or {KEY_VARIABLES[1]}) to a key it accepts")

    def check(self) -> None:
        """Raises TeacherFailed where it cannot be sent in a header."""
        if not (self.value.isascii() and self.value.isprintable()):
            raise TeacherFailed(f"the teacher's key holds characters no key has: {self.place}, without quotes")


def redactor(key: str) -> Callable[[str], str]:
    """A function that takes the key out of a text, also as Base64 or as part of a URL, and brings the text to one line
    of bounded length."""
    forms = {key, quote_plus(key), base64.b64encode(key.encode()).decode()} if key else set()

    def redact(text: str) -> str:
        for form in forms:
            text = text.replace(form, "***")
        one_line = " ".join(text.split())
        return one_line if len(one_line) <= LONGEST_QUOTE else one_line[:LONGEST_QUOTE] + "..."

    return redact


@dataclass(frozen=True)
class Refusal:
    """What an endpoint says when it does not answer, whatever the shape.

    Attributes:
        status: of HTTP, or the one that an error inside a reply names.
        words: its message, with the error's code.
        fields: the fields of the request that it finds fault with, where it names them.
        wait_s: seconds that it asks to wait; None where it does not.
        quota: whether waiting for seconds or minutes does not help.
    """

    status: int
    words: str
    fields: tuple[str, ...] = ()
    wait_s: float | None = None
    quota: bool = False

    @classmethod
    def of(cls, status: int, content: bytes, headers: Mapping[str, str]) -> Self:
        """Reads an error status."""
        text = content.decode("utf-8", "replace")
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            return cls(status, text, (), _asked_to_wait_s(headers, text), bool(NO_QUOTA.search(text)))
        return cls._of_body(status, body, text, headers)

    @classmethod
    def inside(cls, error: Any) -> Self:
        """Reads an error inside a reply with status 200. One that names no status is a passing failure."""
        named = str(error.get("code")) if isinstance(error, dict) else ""
        status = int(named) if re.fullmatch("[45][0-9]{2}", named) else 0
        refusal = cls._of_body(status, error, json.dumps(error), {})
        return refusal if status else replace(refusal, status=429 if RATE_LIMITED.search(refusal.words) else 502)

    @classmethod
    def _of_body(cls, status: int, body: Any, text: str, headers: Mapping[str, str]) -> Self:
        if isinstance(body, list) and body:
            body = body[0]  # Gemini sends a list of one error
        error = body.get("error", body) if isinstance(body, dict) else body
        if not isinstance(error, dict):
            return cls(status, str(error), (), _asked_to_wait_s(headers, text), bool(NO_QUOTA.search(text)))
        faults = [fault for fault in _listed(error.get("detail")) if isinstance(fault, dict)]
        fields = [str(_listed(fault.get("loc"))[-1]) for fault in faults if _listed(fault.get("loc"))]
        told = "; ".join(
            ": ".join(str(word) for word in (*_listed(fault.get("loc"))[-1:], fault.get("msg")) if word)
            for fault in faults
        )
        message = str(error.get("message") or told or error.get("detail") or text)
        if isinstance(error.get("param"), str):
            fields.append(error["param"])
        code = error.get("code") if isinstance(error.get("code"), str) else None
        kinds = f"{code} {error.get('type')}"
        quota = bool(NO_QUOTA.search(kinds) or (DAILY.search(text) and not BY_THE_MINUTE.search(text)))
        return cls(
            status, f"{message} ({code})" if code else message, tuple(fields), _asked_to_wait_s(headers, text), quota
        )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _asked_to_wait_s(headers: Mapping[str, str], text: str) -> float | None:
    """Seconds that an endpoint asks to wait, in a header, or in words such as "try again in 1m30s"."""
    if (header := retry_after_s(headers)) is not None:
        return header
    found = _WAIT.search(text)
    if found is None:
        return None
    return sum(float(amount) * _SECONDS[unit.lower()] for amount, unit in _TIME.findall(found.group(1)))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a Retry-After header asks to wait: a number or an HTTP date; None where there is none."""
    value, unit_s = headers.get("retry-after", "").strip(), 1.0
    if headers.get("retry-after-ms", "").strip():
        value, unit_s = headers["retry-after-ms"].strip(), 0.001
    try:
        seconds = float(value) * unit_s
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


def trouble_with_prompt(refusal: Refusal) -> str | None:
    """What is wrong with the prompt of the request that was refused; None where the words do not say that it is."""
    if refusal.status == 413 or (refusal.status != 429 and TOO_LONG.search(refusal.words)):
        return "the prompt is too long for the teacher"
    if refusal.status in (400, 403, 422, 451) and FILTERED.search(refusal.words):
        return "the endpoint filtered the prompt"
    return None


def refusal_text(status: int, url: str, quote: str, key_place: str) -> str:
    """One line for a refusal that meets every request."""
    if status in (401, 403):
        return f"{url} refused the API key ({status}): {quote} - {key_place}"
    if "chat template" in quote.lower():
        return f"{url}: the model has no chat template; sample it with api: completions ({quote})"
    return f"{url} refused the request ({status}): {quote}"


def wrong_model_text(model: str, url: str, offered: Sequence[str]) -> str:
    """One line for a model that the endpoint does not serve: what it serves, and which of it was probably meant."""
    near = difflib.get_close_matches(model, offered, n=1, cutoff=0.4)
    listed = ", ".join(offered[:20]) + (f" and {len(offered) - 20} more" if len(offered) > 20 else "")
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return f"{url} does not serve a model named {model!r}; it offers: {listed or 'none'}{meant}"


def unlisted_text(model: str, url: str, offered: Sequence[str]) -> str:
    """One line for a model that the endpoint does not list, and may serve all the same."""
    listed = ", ".join(offered[:5]) + (f" and {len(offered) - 5} more" if len(offered) > 5 else "")
    return f"{url} does not list a model named {model!r} (it lists {listed}); asking for it all the same."
