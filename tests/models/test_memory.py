"""What a step is expected to take, what the machine has for it, and what follows from both."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from models import memory
from models.hardware import GIB
from models.memory import CPU_STEP, Footprint, fitting, footprint, room

SIZES = st.integers(1, 10**12)


# ---- how many fit ----


@given(SIZES, SIZES, st.integers(1, 1000))
def test_as_many_as_fit_and_always_one(needed: int, available: int, examples: int) -> None:
    found = fitting(needed, available, examples)
    assert 1 <= found <= examples
    assert found == 1 or found * needed <= available * examples
    assert found == examples or (found + 1) * needed > available * examples


# ---- what a machine has ----


def test_what_is_free_at_the_moment_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that was killed must split its batches as before."""
    before = room(torch.device("cpu"))
    monkeypatch.setattr("models.hardware.psutil.virtual_memory", lambda: pytest.fail("it looked once more"))
    assert room(torch.device("cpu")) == before


@pytest.mark.parametrize(("machine_gib", "expected"), [(2, GIB // 2), (64, CPU_STEP)])
def test_a_small_machine_gives_a_share_and_a_large_one_no_more(
    monkeypatch: pytest.MonkeyPatch, machine_gib: int, expected: int
) -> None:
    monkeypatch.setattr(memory, "memory_limit", lambda: machine_gib * GIB)
    assert room(torch.device("cpu")) == expected


# ---- what a network needs ----


def t5() -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_decoder_layers=3, num_heads=4)
    )


def test_a_t5_is_counted_layer_by_layer() -> None:
    model = t5()
    attention, feed_forward = 4 * (16 + 16), 2 * (16 + 24)
    encoder = footprint(model.get_encoder(), model.config, decoder=False)
    assert encoder == Footprint(2, 2 * (attention + feed_forward), 2 * 4)
    decoder = footprint(model, model.config, decoder=True)
    assert decoder == Footprint(3, 3 * (2 * attention + feed_forward), 3 * 4, logits=50)


def test_a_llama_is_counted_whole() -> None:
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4,
    )  # fmt: skip
    found = footprint(LlamaForCausalLM(config), config, decoder=True)
    assert found == Footprint(2, 2 * (4 * (16 + 16) + 3 * (16 + 24)), 2 * 4, logits=50)


def test_memory_grows_with_rows_and_tokens_and_is_less_without_gradients() -> None:
    one = footprint(t5(), t5().config, decoder=True)
    assert one.training_bytes(2, 10, 5) == 2 * one.training_bytes(1, 10, 5)
    assert one.training_bytes(1, 20, 5) > 2 * one.training_bytes(1, 10, 5), "tokens look at each other"
    assert one.training_bytes(1, 10, 5) > one.training_bytes(1, 10) > one.reading_bytes(1, 10)
