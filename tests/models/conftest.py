"""A random Llama of 40,000 parameters as an ordinary model folder, one real vLLM server of it, and a planted key."""

import logging
from collections.abc import Iterator

import pytest

from tests.models.endpoint import KEY


@pytest.fixture
def planted_key(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The test runs with an API key, everything is logged, and the key must not be in the log."""
    monkeypatch.setenv("QCRD_TEACHER_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-the-other-one")
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx2", "httpcore2", "aiohttp", "models"):
        caplog.set_level(logging.DEBUG, logger=name)
    yield
    assert KEY not in caplog.text
