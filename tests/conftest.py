"""What several folders of tests need: a tiny model with a real vLLM server, and the `qcrd` command as a process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.server import VllmServer
from models.server_settings import ServerConfig

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def build_tiny_llama(folder: Path) -> Path:
    """Writes a Llama with random weights, a context of 512 tokens, and a byte-level tokenizer with 300 tokens."""
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
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: where two files are tested at a time, none of them is left for the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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


Qcrd = Callable[..., subprocess.CompletedProcess[str]]


def qcrd_command(home: Path, *arguments: object) -> list[str]:
    """The command line of one `qcrd` process."""
    command, *rest = map(str, arguments)
    subcommand = rest[:1] if command in ("lab", "show", "store") else []
    return [
        sys.executable, "-c", "from flows.cli import main; main()",
        command, *subcommand, "--home", str(home), *rest[len(subcommand) :],
    ]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state folder of the test's own."""
    return tmp_path / "home"


@pytest.fixture
def qcrd(home: Path) -> Qcrd:
    """Runs `qcrd` as a process with a state folder of its own; arguments are strings, numbers or paths."""

    def run(*arguments: object, code: int = 0, home: Path = home, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            qcrd_command(home, *arguments), capture_output=True, text=True, env={**os.environ, **env}, check=False
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def figures(done: subprocess.CompletedProcess[str]) -> Any:
    """What a command printed with --json."""
    return json.loads(done.stdout)
