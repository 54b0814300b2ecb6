"""The client of an endpoint's batches, in the shape of OpenAI's: upload, wait, download, at half the price.

A batch is a file of requests that the endpoint answers within a day. It goes on when nobody waits for it, so who asks
keeps its id and collects later what came (`tasks.teacher.batches`).
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import httpx2
import openai

from models.errors import TeacherFailed, TeacherUnavailable
from models.teacher_api import TeacherReply, TeacherRequest, request_body, request_path
from models.teacher_dialect import Dialect
from models.teacher_endpoint import is_loopback
from models.teacher_refusals import Refusal, RequestRefused, TeacherKey, redactor, refusal_text
from models.teacher_replies import ErrorInReplyError, NonsenseError, read_reply
from models.teacher_settings import SamplingConfig, TeacherConfig

MOST_REQUESTS, MOST_BYTES = 50_000, 100_000_000
"""Of one batch, as OpenAI limits them (its files may have 200 MB)."""
TAG = "qcrd"
"""Key of a batch's metadata under which it is found again if nobody noted its id."""
OVER = ("completed", "failed", "expired", "cancelled")
LOOKED_THROUGH = 100  # of the newest batches, when one is looked for
RETRIES, WAIT_S = 5, 2.0
Answer = TypeVar("Answer")


class BatchGone(TeacherFailed):
    """The endpoint does not know a batch, or a file of it, that it once had."""


@dataclass(frozen=True)
class BatchState:
    """How a batch stands.

    Attributes:
        id: the endpoint's.
        status: in its words, such as "in_progress" or "completed".
        answered, failed, total: requests; 0 while it does not say.
        files: ids of the files with replies and with errors, as far as there are any.
        errors: what it says is wrong with the whole batch.
    """

    id: str
    status: str
    answered: int
    failed: int
    total: int
    files: tuple[str, ...]
    errors: tuple[str, ...]

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.status in OVER


@dataclass(frozen=True)
class Passed:
    """A request that may be answered another time: an expired batch, or a server's error.

    Attributes:
        what: for people.
    """

    what: str


class BatchEndpoint:
    """An endpoint's batches.

    Args:
        config: where it is.
        sampling: how it is sampled; what the endpoint does not take must be said beforehand (`extra_body`), since a
            refusal comes too late to learn from.
        key: the endpoint's.

    Raises:
        TeacherFailed: the key cannot be one.
    """

    def __init__(self, config: TeacherConfig, sampling: SamplingConfig, key: TeacherKey) -> None:
        key.check()
        self._config, self._sampling = config, sampling
        self._key_place, self._redact = key.place, redactor(key.value)
        self._dialect = Dialect.of(sampling)
        self._client = openai.OpenAI(
            api_key=key.value or "none",
            base_url=config.base_url,
            max_retries=RETRIES,
            http_client=openai.DefaultHttpxClient(
                timeout=httpx2.Timeout(config.request_timeout_s, connect=config.connect_timeout_s),
                trust_env=not is_loopback(config.base_url),
            ),
        )

    def close(self) -> None:
        """Closes all connections."""
        self._client.close()

    def lines(self, request: TeacherRequest) -> Iterator[tuple[str, TeacherRequest, dict[str, Any], bytes]]:
        """(id of the line, the request, the body that is sent, the line itself).

        An endpoint that gives one sample a request gets several, whose ids differ by the index of the sample.
        """
        most = self._dialect.most_choices or request.n
        for offset in range(0, request.n, most):
            part = request.part(offset, min(most, request.n - offset))
            standard = request_body(self._config.model, self._sampling, part, token_ids=False)
            body = self._dialect.body(standard, self._sampling.extra_body)
            key = f"{request.request_id}+{offset}" if offset else request.request_id
            line = {"custom_id": key, "method": "POST", "url": f"/v1{request_path(self._sampling)}", "body": body}
            yield key, part, body, json.dumps(line, ensure_ascii=False).encode() + b"\n"

    def submit(self, content: bytes, tag: str) -> str:
        """Uploads a file of requests and has it answered.

        Args:
            tag: by which `find` finds the batch.

        Returns:
            The batch's id.

        Raises:
            TeacherFailed, TeacherUnavailable: it is refused, or nobody answers.
        """
        # What is read of an answer is read inside the call: a page that is no answer has none of it.
        file = self._tried(lambda: self._client.files.create(file=(f"{tag}.jsonl", content), purpose="batch").id)
        # The path is one of few that the package's types know; any endpoint of the kind takes it.
        path: Any = f"/v1{request_path(self._sampling)}"
        once = self._client.with_options(max_retries=0)

        def make() -> str:
            return once.batches.create(
                input_file_id=file, endpoint=path, completion_window="24h", metadata={TAG: tag}
            ).id

        for left in reversed(range(RETRIES + 1)):
            try:
                return self._tried(make)
            except TeacherUnavailable:
                # It may have been made, and only the answer been lost. Made twice, it is paid twice.
                if (made := self.find(tag)) is not None:
                    return made
                if not left:
                    raise
                time.sleep(WAIT_S)
        raise AssertionError("unreachable")

    def find(self, tag: str) -> str | None:
        """The id of a batch that was submitted with this tag; None if none of the newest was."""

        def newest() -> list[tuple[str, Any]]:
            listed = self._client.batches.list(limit=LOOKED_THROUGH).data
            return [(batch.id, (batch.metadata or {}).get(TAG)) for batch in listed]

        return next((batch_id for batch_id, of in self._tried(newest) if of == tag), None)

    def state(self, batch_id: str) -> BatchState:
        """How a batch stands.

        Raises:
            TeacherFailed, TeacherUnavailable: the endpoint does not know it, or does not answer.
        """

        def read() -> BatchState:
            batch = self._client.batches.retrieve(batch_id)
            counts = batch.request_counts
            errors = (batch.errors.data or []) if batch.errors else []
            files = tuple(file for file in (batch.output_file_id, batch.error_file_id) if file)
            return BatchState(
                batch.id, batch.status, counts.completed if counts else 0, counts.failed if counts else 0,
                counts.total if counts else 0, files, tuple(self._redact(str(error.message)) for error in errors),
            )  # fmt: skip

        return self._tried(read, of=f"the batch {batch_id}")

    def outcomes(
        self, state: BatchState, asked: Mapping[str, tuple[TeacherRequest, Mapping[str, Any]]]
    ) -> Iterator[tuple[str, TeacherReply | RequestRefused | Passed]]:
        """(id of a line, what came of its request). One that is in none of the batch's files was not answered.

        Args:
            asked: id of a line -> its request and the parameters that were sent.
        """
        for file in state.files:
            content = self._tried(partial(self._content, file), of=f"the file {file} of the batch {state.id}")
            for line in content.splitlines():
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                    key = row["custom_id"]
                except (ValueError, KeyError, TypeError):
                    raise TeacherFailed(
                        f"a file of the batch {state.id} holds a line that is no reply: {self._redact(str(line[:200]))}"
                    ) from None
                if key in asked:
                    yield key, self._outcome(row, *asked[key])

    def _content(self, file: str) -> bytes:
        return self._client.files.content(file).content

    def _outcome(
        self, row: Mapping[str, Any], request: TeacherRequest, sent: Mapping[str, Any]
    ) -> TeacherReply | RequestRefused | Passed:
        response = row.get("response") or {}
        status = response.get("status_code")
        if not isinstance(status, int):  # "batch_expired" and the like
            return Passed(self._redact(json.dumps(row.get("error"))))
        body = json.dumps(response.get("body")).encode()
        try:
            if status == 200:
                return read_reply(body, self._sampling, request, sent)
            refusal = Refusal.of(status, body, {})
        except NonsenseError as nonsense:
            return Passed(self._redact(str(nonsense)))
        except ErrorInReplyError as error:
            refusal = Refusal.inside(error.error)
        words = f"{refusal.status}: {self._redact(refusal.words)}"
        if refusal.status >= 500 or refusal.status in (408, 409, 425, 429):
            return Passed(words)
        return RequestRefused(request.request_id, words)

    def _tried(self, call: Callable[[], Answer], of: str | None = None) -> Answer:
        """A call's answer; the openai package has tried it several times.

        Args:
            of: what the call is about, where the endpoint once had it.

        Raises:
            TeacherFailed, TeacherUnavailable: in our words, without the key.
        """
        url = self._config.base_url
        try:
            return call()
        except openai.APIConnectionError as error:
            failure: Exception = TeacherUnavailable(
                f"cannot reach {url}: {self._redact(str(error.__cause__ or error))}"
            )
        except openai.APIStatusError as error:
            failure = self._explained(error, of)
        except (AttributeError, TypeError, ValueError):  # the package hands on whatever a page with status 200 says
            failure = TeacherFailed(f"{url} answers with what is neither batch nor file - should the URL end in /v1?")
        raise failure  # after the handler: the package's exception holds the request with its key

    def _explained(self, error: openai.APIStatusError, of: str | None) -> Exception:
        refusal = Refusal.of(error.status_code, error.response.content, error.response.headers)
        quote, url = self._redact(refusal.words), self._config.base_url
        if error.status_code >= 500 or error.status_code == 429:
            return TeacherUnavailable(f"{url} keeps failing; last: {error.status_code}: {quote}")
        if error.status_code in (404, 405) and of is not None:
            return BatchGone(f"{url} does not know {of} any more (another key, or deleted): {quote}")
        if error.status_code in (404, 405):
            return TeacherFailed(f"{url} knows no batches ({error.status_code}): {quote} - leave out teacher.batch")
        return TeacherFailed(refusal_text(error.status_code, url, quote, self._key_place))
