"""A real vLLM server with a reasoning parser: the thought comes apart from the text and is stored apart.

The model is a tiny Llama that has learnt one reply by heart, thought and all. Its chat template opens the thought, as
those of DeepSeek's and Qwen's models do.
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
STEPS = 400


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder."""
    folder = build_tiny_llama(tmp_path_factory.mktemp("thinker") / "thinker", context=512)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    tokenizer.chat_template = CHAT_TEMPLATE.replace("assistant:{% endif %}", "assistant:<think>\n{% endif %}")
    tokenizer.save_pretrained(folder)
    settings = LlamaConfig.from_pretrained(folder)
    settings.vocab_size = len(tokenizer)
    torch.manual_seed(0)
    model = LlamaForCausalLM(settings)
    loss = learn_by_heart(model, tokenizer, f"{THOUGHT}</think>\n\n{FINAL}</s>")
    assert loss < 0.02
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def learn_by_heart(model: Any, tokenizer: Any, reply: str) -> float:
    """Trains the model to write the reply after any prompt; returns the last loss, in nats."""

    def ids_of(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    opened, said = ids_of("assistant:<think>\n"), ids_of(reply)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loss = torch.tensor(0.0)
    for _ in range(STEPS):
        prompts = torch.randint(2, 256, (4, int(torch.randint(10, 120, ()))))
        fixed = torch.tensor([*opened, *said]).expand(4, -1)
        ids = torch.cat([prompts, fixed], dim=1)
        labels = ids.clone()
        labels[:, : ids.shape[1] - len(said)] = -100
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return float(loss.detach())


def test_a_thought_that_vllm_takes_apart_is_stored_apart(tmp_path: Path, home: Path, thinker: Path) -> None:
    (tmp_path / "nuts.yaml").write_text(DATASET, encoding="utf-8")
    (tmp_path / "nuts.jsonl").write_text(json.dumps({"question": "Ann has 9 nuts and eats 4. Left?", "label": 5}))
    config = ServerConfig(model=str(thinker), served_name="thinker", extra_args=("--reasoning-parser", "deepseek_r1"))
    with VllmServer(config, tmp_path / "server.log") as server:
        command = qcrd_command(
            home, "sample", "--dataset", tmp_path / "nuts.yaml", "--url", server.base_url, "--model", "thinker",
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
