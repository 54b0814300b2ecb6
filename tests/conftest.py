"""What several folders of tests need: a tiny model with a real vLLM server, the `qcrd` command as a process, and new
databases of Prefect and MLflow, which are made once and copied."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from models.server import VllmServer
from models.server_settings import ServerConfig
from tests.warm_start import WarmStart, qcrd_arguments, shared_warm_start

ROOT = Path(__file__).resolve().parents[1]
# xdist hands on the width of its terminal, and rich keeps for good what it finds when a console is made.
os.environ.pop("COLUMNS", None)
LONGEST = (
    "test_fault_injection",
    "test_stack",
    "test_lab_end_to_end",
    "test_shards_chaos",
    "test_folder",
    "test_server",
    "test_shards",
    "test_nodes",
    "test_services_gone",
    "test_forget",
)
"""Files that take minutes, the longest first."""
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture(scope="module", autouse=True)
def _own_code_first() -> Iterator[None]:
    """MLflow leaves the package's code first in the path; the workers of later tests would import that."""
    paths = list(sys.path)
    yield
    sys.path[:] = paths


def build_tiny_llama(folder: Path, context: int = 512) -> Path:
    """Writes a Llama with random weights, a context of so many tokens, and a byte-level tokenizer with 300 tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["Ann has 3 apples and buys 12 more. She has 3 + 12 = 15."] * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,  # the smallest that vLLM's CPU attention knows
        max_position_embeddings=context,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, those that take minutes before the others: where several files are tested at a
    time, none of them is left for the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (places.get(item.path.stem, len(LONGEST)), item.path not in slow))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder."""
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def vllm_server(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """A running server of it; starting takes about 30 s, so all tests share it, also those that kill parts of it."""
    log_file = tmp_path_factory.mktemp("server") / "server.log"
    config = ServerConfig(model=str(tiny_llama), served_name="tiny", max_restarts=5)
    with VllmServer(config, log_file) as server:
        yield server


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all processes that test at a time."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


MAKE_PREFECT = """
import asyncio
from prefect.server.database import provide_database_interface
asyncio.run(provide_database_interface().create_db())
"""
MAKE_MLFLOW = """
import sys
from pathlib import Path
from tasks.tracking.client import open_tracking
open_tracking(Path(sys.argv[1]))
"""


def made_once(shared: Path, name: str, program: str, file: str, **env: str) -> Path:
    """A file in a folder of that name, made by a program that is given the folder, for all processes that test."""
    folder = shared / name
    with FileLock(shared / f"{name}.lock"):
        if not (folder / "made").exists():
            command = [sys.executable, "-c", program, str(folder)]
            subprocess.run(command, check=True, env={**os.environ, **env, "PYTHONPATH": str(ROOT)}, cwd=shared)
            (folder / "made").touch()
    return folder / file


@pytest.fixture(scope="session")
def prefect_database(shared_folder: Path) -> Path:
    """A new database of Prefect's; making one takes ten seconds of a processor."""
    home = str(shared_folder / "new-prefect")
    return made_once(shared_folder, "new-prefect", MAKE_PREFECT, "prefect.db", PREFECT_HOME=home)


@pytest.fixture(scope="session")
def mlflow_database(shared_folder: Path) -> Path:
    """A new database of MLflow's; making one takes five."""
    return made_once(shared_folder, "new-mlflow", MAKE_MLFLOW, "mlflow/mlflow.db", MLFLOW_TRACKING_URI="")


@pytest.fixture(scope="session")
def new_databases(prefect_database: Path, mlflow_database: Path) -> Callable[[Path], Path]:
    """Puts copies of both into a state folder, which it returns."""

    def put(home: Path) -> Path:
        for name, database in (("prefect", prefect_database), ("mlflow", mlflow_database)):
            (home / name).mkdir(parents=True)
            shutil.copyfile(database, home / name / database.name)
        return home

    return put


@pytest.fixture
def databases(home: Path, new_databases: Callable[[Path], Path]) -> None:
    """The test's own state folder has them."""
    new_databases(home)


Qcrd = Callable[..., subprocess.CompletedProcess[str]]


def qcrd_command(home: Path, *arguments: object) -> list[str]:
    """The command line of one `qcrd` process."""
    return [sys.executable, "-c", "from flows.cli import main; main()", *qcrd_arguments(home, *arguments)]


@pytest.fixture(scope="session")
def warm_start() -> WarmStart:
    """Starts `qcrd` in a moment."""
    return shared_warm_start()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state folder of the test's own."""
    return tmp_path / "home"


@pytest.fixture
def cold_qcrd(home: Path) -> Qcrd:
    """Runs `qcrd` as a user would, with a state folder of its own; arguments are strings, numbers or paths."""

    def run(*arguments: object, code: int = 0, home: Path = home, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            qcrd_command(home, *arguments), capture_output=True, text=True, env={**os.environ, **env}, check=False
        )
        return checked(done, code)

    return run


@pytest.fixture
def qcrd(home: Path, warm_start: WarmStart) -> Qcrd:
    """The same, forked from a process that has imported everything."""

    def run(*arguments: object, code: int = 0, home: Path = home, **env: str) -> subprocess.CompletedProcess[str]:
        return checked(warm_start.run(home, *arguments, env={**os.environ, **env}), code)

    return run


def checked(done: subprocess.CompletedProcess[str], code: int) -> subprocess.CompletedProcess[str]:
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def figures(done: subprocess.CompletedProcess[str]) -> Any:
    """What a command printed with --json."""
    return json.loads(done.stdout)
