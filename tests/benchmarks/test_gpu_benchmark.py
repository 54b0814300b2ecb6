"""The GPU benchmark at tiny sizes on the CPU: every section runs, every check passes, and the figures are kept. Its
count of operations is held against torch's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import synthetic
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.flops import decoder_flops, encoder_flops, step_flops
from benchmarks.gpu.report import Report
from benchmarks.gpu.steps import ACTIVE, one_positive
from models.methods import MethodConfig
from models.student_training import Rationale, StudentTraining, TrainingExample, collate


def arguments(folder: Path, *options: str) -> list[str]:
    return ["--out", str(folder), "--device", "cpu", *options]


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments(folder, *options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def tables(folder: Path) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = json.loads((folder / "results.json").read_text())["tables"]
    return found


def test_every_section_runs_and_every_check_passes(tmp_path: Path) -> None:
    done = run(tmp_path, "--small")
    assert done.returncode == 0, done.stdout + done.stderr
    found = tables(tmp_path)
    sections = ["machine", "losses", "resume", "ceilings", "steps", "profile", "generation", "settings", "graph"]
    assert [row["section"] for row in found["Sections"]] == [*sections, "compile"]
    checks = [row for rows in found.values() for row in rows if "result" in row]
    assert {row["result"] for row in checks} == {"PASS"}
    assert {"tiny, qcrd, float32: gradient", "tiny llama, dss, bfloat16: loss"} <= {row["what"] for row in checks}
    ways = {row["way"] for row in found["Training steps"]}
    assert ways == {"dss", "dss, transformers' calls", "qcrd, all repelled", "qcrd, none repelled"}
    assert all(float(str(row["examples/s"])) > 0 for row in found["Training steps"])
    assert len(found["Texts written"]) == 4
    assert "| tiny | bfloat16 | 2 | dss |" in (tmp_path / "results.md").read_text()


def test_it_imports_nothing_that_a_gpu_machine_may_lack() -> None:
    lacking = {"storage", "tasks", "flows", "duckdb", "vllm", "prefect", "mlflow", "openai"}
    program = (
        "import sys, runpy; sys.argv = ['x', '--help']\ntry: runpy.run_module('benchmarks.gpu', run_name='__main__')"
    )
    program += "\nexcept SystemExit: print('\\n' + ' '.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not lacking & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "add --small"),
        (["--small", "--sections", "stepps"], "unknown section 'stepps'; there are machine, losses"),
    ],
)
def test_a_wrong_call_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", *arguments(tmp_path, *options)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_later_run_keeps_the_tables_that_it_does_not_fill(tmp_path: Path) -> None:
    first = Report(tmp_path, 60)
    first.row("one", figure=1)
    first.row("two", figure=1)
    second = Report(tmp_path, 60)
    second.row("two", figure=2)
    assert tables(tmp_path) == {"one": [{"figure": 1}], "two": [{"figure": 2}]}


def test_a_check_fails_above_its_limit_and_where_there_is_no_number(tmp_path: Path) -> None:
    report = Report(tmp_path, 60)
    for value in (0.5, 1.5, float("nan")):
        report.check("checks", "a value", value, 1.0)
    assert [row["result"] for row in tables(tmp_path)["checks"]] == ["PASS", "FAIL", "FAIL"]
    assert report.failed == 2


@pytest.mark.parametrize("shape", ["tiny", "small"])  # gated and not
def test_forward_operations_are_those_that_torch_counts(shape: str) -> None:
    student, source, target = synthetic.make_student(shape, 512), 24, 10
    ids = torch.randint(3, 512, (1, source))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        student.cross_entropy(student.encode(ids, torch.ones_like(ids)), torch.randint(3, 512, (1, target)))
    config = student.model.config
    expected = encoder_flops(config, source) + decoder_flops(config, source, target)
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", [MethodConfig(name="dss"), ACTIVE])
def test_a_steps_operations_are_those_that_torch_counts(method: MethodConfig) -> None:
    student = synthetic.make_student("tiny")

    def ids(length: int) -> list[int]:
        return list(range(3, 3 + length))

    # Equal lengths, so that there is no padding and every choice costs the same.
    rationales = [Rationale(ids(9), 0.5) for _ in range(3)]
    examples = [TrainingExample(ids(20), ids(20), ids(3), rationales, rationales[:2]) for _ in range(4)]
    examples = one_positive(examples) if method.name == "dss" else examples
    module = StudentTraining(student, method, 4).train()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        torch.autograd.backward(module(collate(examples, range(4), student.pad_id))["loss"])
    assert counter.get_total_flops() == pytest.approx(step_flops(student.model.config, examples), rel=0.02)
