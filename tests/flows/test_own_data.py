"""docs/own-data.md in small: from documents with several labels each to a registered student that is asked."""

import json
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.own_data import DOCUMENTS, Standin, write_documents
from flows.cli import run
from tests.conftest import Qcrd

pytestmark = pytest.mark.slow

SMALL = {
    "student.model": "new",
    "student.new": "{hidden: 16, layers: 1, heads: 2, intermediate: 24, vocab_size: 320}",
    "student.max_input_tokens": 256,
    "student.max_target_tokens": 96,
    "method.negatives": "false",
    "method.discriminator": "false",
    "optimisation.device": "cpu",
    "rounds.rounds": 1,
    "rounds.threads": 1,
    "answering.samples": "[0]",
}


@pytest.fixture
def url() -> Iterator[str]:
    """The stand-in for a teacher."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Standin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_documents_with_several_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qcrd: Qcrd, url: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_documents(tmp_path / "documents.jsonl", 60)
    assert run(["init", "documents.jsonl", "--yes", "--url", url, "--model", "rules"]) == 0
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    result = json.loads(qcrd("distill", "documents-student.yaml", "--json", *settings).stdout)
    assert result["sampled"]["sampled"] == 5 * 60
    assert result["votes"]["majority_accuracy"] > 0.8, "the stand-in is wrong in one text of six"
    assert result["methods"][0]["test"]["explanation_accuracy"] is None, "a rationale announces no set"
    assert result["registered"]["name"] == "qcrd-documents"

    asked = qcrd("predict", "--path", "documents.jsonl", "--dataset", "documents.yaml", "--json")
    answers = [row["answer"] for row in json.loads(asked.stdout)]
    assert len(answers) == 60
    labels = {"none", *DOCUMENTS}
    assert all(label in labels for answer in answers if answer is not None for label in answer.split(", "))
    refused = qcrd("distill", "documents-student.yaml", "--set", "own.samples=2", *settings, code=2)
    assert "own.samples is 2, but the answers of documents are sets of labels" in refused.stderr
    refused = qcrd("predict", "--path", "documents.jsonl", code=2)
    assert "row 1 has no text in the column `question`. If its columns are those of your dataset" in refused.stderr
