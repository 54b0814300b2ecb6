"""What an endpoint's refusal means, in one line that says what to do; and what must never be in that line."""

import base64
import difflib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote_plus

from models.errors import TeacherFailed

KEY_VARIABLES = ("QCRD_TEACHER_API_KEY", "OPENAI_API_KEY")  # looked at in this order
LONGEST_QUOTE = 300  # characters of an endpoint's own words in one of our messages

# How vLLM, OpenAI and llama.cpp say that a prompt does not fit, as a pattern over the message or the error's code.
TOO_LONG = re.compile(
    r"maximum context length|context_length_exceeded|"
    r"longer than the maximum model length|exceeds? the available context",
    re.IGNORECASE,
)
FILTERED = re.compile(r"content_filter|content_policy|content management policy", re.IGNORECASE)
# A 429 that waiting does not mend.
NO_QUOTA = re.compile(r"insufficient_quota|billing_hard_limit|exceeded your current quota", re.IGNORECASE)


class RequestRefused(TeacherFailed):
    """One request cannot be answered (its prompt is too long, or filtered); others can.

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


def endpoint_words(content: bytes) -> str:
    """The message inside an error body, whatever its shape; with the error's code, which programs go by."""
    text = content.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except ValueError:
        return text
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return str(error)
    message = error.get("message") or error.get("detail") or text
    code = error.get("code")
    return f"{message} ({code})" if isinstance(code, str) else str(message)


def refused_request(request_id: str, status: int, words: str, quote: str) -> RequestRefused | None:
    """The refusal of this one request, where its cause lies in the request and not in the configuration."""
    if status not in (400, 413, 422):
        return None
    if status == 413 or TOO_LONG.search(words):
        return RequestRefused(request_id, f"the prompt is too long for the teacher: {quote}")
    if FILTERED.search(words):
        return RequestRefused(request_id, f"the endpoint filtered the prompt: {quote}")
    return None


def refusal_text(status: int, url: str, quote: str, key_place: str) -> str:
    """One line for a refusal that would meet every request."""
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
