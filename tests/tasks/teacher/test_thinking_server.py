"""A real vLLM server with a reasoning parser: the thought comes apart from the text and is stored apart.

The model is a tiny Llama that has learnt one reply to one question by heart, thought and all. Its chat template opens
the thought, as those of DeepSeek's and Qwen's models do.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from models.server import VllmServer
from models.server_settings import ServerConfig
from storage.datasets.registry import get_dataset
from storage.store import Store
from tests.conftest import CHAT_TEMPLATE, build_tiny_llama, qcrd_command

pytestmark = pytest.mark.slow

THOUGHT = "Ann has 9 nuts? No: 9 - 4 = 5."
FINAL = "She eats 4 of the 9 nuts, so 9 - 4 = 5 are left. So the answer is 5."
DATASET = """
name: nuts
answers: number
splits: {train: nuts.jsonl}
instruction: Count.
"""
QUESTION = "Ann has 9 nuts and eats 4. Left?"
STEPS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the dataset, and the model in `thinker`."""
    folder = tmp_path_factory.mktemp("nuts")
    (folder / "nuts.yaml").write_text(DATASET, encoding="utf-8")
    (folder / "nuts.jsonl").write_text(json.dumps({"question": QUESTION, "label": 5}), encoding="utf-8")
    made = build_tiny_llama(folder / "thinker", context=512)
    tokenizer = AutoTokenizer.from_pretrained(made)
    tokenizer.add_tokens(["<think>", "</think>"])  # not special ones, which vLLM would leave out of texts
    tokenizer.chat_template = CHAT_TEMPLATE.replace("assistant:{% endif %}", "assistant:<think>\n{% endif %}")
    tokenizer.save_pretrained(made)
    settings = LlamaConfig.from_pretrained(made)
    settings.vocab_size = len(tokenizer)
    torch.manual_seed(0)
    model = LlamaForCausalLM(settings)
    messages = get_dataset(str(folder / "nuts.yaml")).teacher_prompt(QUESTION, ()).messages()
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert learn_by_heart(model, tokenizer, prompt, f"{THOUGHT}</think>\n\n{FINAL}</s>") < 0.01
    model.to(torch.bfloat16).save_pretrained(made)
    return folder


def learn_by_heart(model: Any, tokenizer: Any, prompt: str, reply: str) -> float:
    """Trains the model to write the reply; returns the last loss, in nats."""
    before, said = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, reply))
    ids = torch.tensor([[*before, *said]])
    labels = torch.tensor([[*[-100] * len(before), *said]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loss = torch.tensor(0.0)
    for _ in range(STEPS):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return float(loss.detach())


def test_a_thought_that_vllm_takes_apart_is_stored_apart(tmp_path: Path, home: Path, folder: Path) -> None:
    model = str(folder / "thinker")
    config = ServerConfig(model=model, served_name="thinker", extra_args=("--reasoning-parser", "deepseek_r1"))
    with VllmServer(config, tmp_path / "server.log") as server:
        command = qcrd_command(
            home, "sample", "--dataset", folder / "nuts.yaml", "--url", server.base_url, "--model", "thinker",
            "--n", 2, "--temperature", 0, "--json",
        )  # fmt: skip
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures = json.loads(done.stdout)
    assert (figures["sampled"], figures["unparsed"]) == (2, 0)
    rows = Store(home / "store").query("SELECT * FROM rationales").to_pylist()
    assert {row["thought"] for row in rows} == {THOUGHT}
    assert {row["text"].strip() for row in rows} == {FINAL}
    assert {row["rationale"] for row in rows} == {"She eats 4 of the 9 nuts, so 9 - 4 = 5 are left."}
    assert {row["answer"] for row in rows} == {"5"}
