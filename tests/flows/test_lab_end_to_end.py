"""The whole first half on real parts: train the lab's teacher, serve it with vLLM, sample it, vote."""

from pathlib import Path

import pytest

from tests.conftest import Qcrd, figures

pytestmark = pytest.mark.slow


def test_the_lab_teacher_is_usefully_wrong(home: Path, qcrd: Qcrd) -> None:
    built = figures(qcrd("lab", "build", "--json"))
    assert (Path(built["folder"]) / "model.safetensors").is_file()
    assert not built["reused"]
    assert figures(qcrd("lab", "build", "--json"))["reused"]

    sampled = figures(qcrd("sample", "--dataset", "lab", "--limit", 300, "--json"))
    assert sampled["sampled"] == 1500
    assert sampled["refused"] == {}
    assert figures(qcrd("sample", "--dataset", "lab", "--limit", 300, "--json"))["sampled"] == 0

    voted = figures(qcrd("vote", "--dataset", "lab", "--json"))
    assert voted["examples"] == 300
    assert voted["samples"] == 1500
    assert 0.60 <= voted["single_accuracy"] <= 0.85
    assert voted["majority_accuracy"] >= voted["single_accuracy"] + 0.05

    # Nothing downstream knows that it is the lab: the rows are a teacher's like any other's.
    rows = figures(qcrd("sql", "SELECT DISTINCT source, model, model_revision IS NOT NULL AS pinned, "
                        "completion_tokens > 0 AS counted FROM rationales", "--json"))  # fmt: skip
    assert rows == [{"source": "teacher", "model": "lab-teacher", "pinned": True, "counted": True}]
    assert list((home / "logs").glob("vllm-*.log"))
