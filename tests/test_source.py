"""What no file of this project may do, beyond what ruff's security rules hold (S102 exec, S301 pickle, S307 eval, S506
yaml.load, S602-S605 shells): read weights from pickles, or let a model repository run code. And what a run does
without."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for name in ("flows", "tasks", "models", "storage") for path in (ROOT / name).rglob("*.py"))
NEVER_EXCUSED = re.compile(r"noqa:.*\b(S102|S301|S307|S506|S602|S604|S605)\b")


def faults(source: str) -> list[str]:
    """What is wrong with a file's source, with line numbers."""
    found = [f"{number}: {line}" for number, line in enumerate(source.splitlines(), 1) if NEVER_EXCUSED.search(line)]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [
                f"{node.lineno}: {name}"
                for name in names
                if name.split(".")[0] in ("pickle", "cloudpickle", "dill", "joblib")
            ]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if called.endswith("torch.load") and given.get("weights_only") != "True":
            found.append(f"{node.lineno}: torch.load without weights_only=True")
        if given.get("trust_remote_code", "False") != "False" or given.get("allow_pickle", "False") != "False":
            found.append(f"{node.lineno}: {called} may run what it reads")
        auto = re.fullmatch(r"Auto\w+\.from_pretrained", called)
        if auto and given.get("trust_remote_code") != "False" and None not in given:
            found.append(f"{node.lineno}: {called} does not say trust_remote_code=False")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_reads_nothing_that_could_run(file: Path) -> None:
    assert faults(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoTokenizer.from_pretrained(name)",
        "numpy.load(path, allow_pickle=True)",
        "run(command, shell=True)  # noqa: S602 - we know better",
    ],
)
def test_what_is_wrong_is_found(line: str) -> None:
    assert faults(line) != []


HEAVY = """
import sys
from pathlib import Path
from flows.prefect.embedded import prepare_prefect

prepare_prefect(Path(sys.argv[1]))
import flows.distill
import tasks.serving.served_model  # which registering a student runs

print(*sorted({"torch", "transformers", "vllm", "openai", "scipy.stats"} & set(sys.modules)))
"""


def test_a_run_s_own_process_loads_no_model_library(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, str(tmp_path)],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [], "its workers load them, see tasks/training/in_worker.py"


def test_a_configuration_is_checked_without_a_client_a_server_or_a_model_library() -> None:
    """What `qcrd` reads its help from, too. The openai package alone takes longer to import than all of it."""
    heavy = {"openai", "prefect", "mlflow", "torch", "transformers", "vllm"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys, flows.cli, flows.config.distill; print(*sys.modules)"],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert heavy & set(done.stdout.split()) == set()
