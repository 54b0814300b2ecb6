"""Tiny students with random weights, one of every kind that the code treats differently."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from models.configs import NewStudentConfig, StudentConfig
from models.lab_teacher import build_tokenizer
from models.student import DecoderOnlyStudent, EncoderDecoderStudent, Student
from models.student_loading import make_student

QUESTIONS = [
    "Ann has 3 apples and buys 12 more. How many?",
    "Ben has 9 marbles and loses 4 of them on his way to school. How many are left?",
    "2 + 2?",
]
RATIONALES = ["3 + 12 = 15. So the answer is 15.", "", "Two and two more are four, which is 4. So the answer is 4."]
LIMITS: dict[str, Any] = {"max_input_tokens": 128, "max_target_tokens": 128}
SIZES = NewStudentConfig(hidden=32, layers=2, heads=2, intermediate=48, vocab_size=300)


def tokenizer() -> Any:
    """The byte-level one of the lab: 256 bytes, <pad>, <s>, </s> and a few dozen merges."""
    return build_tokenizer([*QUESTIONS, *RATIONALES], 300, 256)


def new_student(architecture: Any, **settings: Any) -> Student:
    """A T5 or a Llama, as users make them."""
    new = SIZES.model_copy(update={"architecture": architecture})
    return make_student(StudentConfig(model="new", new=new, **LIMITS, **settings), [*QUESTIONS, *RATIONALES])


def t5() -> Student:
    return new_student("t5")


def flan() -> Student:
    """As Flan-T5 and T5 v1.1: the output layer is no embedding, and what goes into it is not scaled down."""
    words = tokenizer()
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(words),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        pad_token_id=words.pad_token_id,
        eos_token_id=words.eos_token_id,
        decoder_start_token_id=words.pad_token_id,
    )
    model = T5ForConditionalGeneration(config).eval()
    assert not model.config.scale_decoder_outputs
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) / 6)
    return EncoderDecoderStudent(model, words, **LIMITS)


def llama() -> Student:
    return new_student("llama")


def bart() -> Student:
    """An encoder-decoder that is no T5: learnt positions, biases, tokens of its own before and after."""
    words = tokenizer()
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(words),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=256,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        decoder_start_token_id=words.eos_token_id,
        forced_eos_token_id=None,
        init_std=0.3,
    )
    return EncoderDecoderStudent(BartForConditionalGeneration(config).eval(), words, **LIMITS)


def gpt2() -> Student:
    """A decoder-only model whose positions are learnt, so that a wrong one shows."""
    words = tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(words),
        n_positions=256,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    return DecoderOnlyStudent(GPT2LMHeadModel(config).eval(), words, **LIMITS)


def _windowed(kind: type[Any], config: type[Any], **settings: Any) -> Student:
    """A decoder-only model in which a token looks back at 8 others, itself among them: less than a question is long."""
    words = tokenizer()
    torch.manual_seed(0)
    sizes = config(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
        sliding_window=8,
        initializer_range=0.3,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        **settings,
    )
    return DecoderOnlyStudent(kind(sizes).eval(), words, **LIMITS)


def mistral() -> Student:
    """Every layer has a window."""
    return _windowed(MistralForCausalLM, MistralConfig)


def gemma2() -> Student:
    """Every other layer has one."""
    return _windowed(Gemma2ForCausalLM, Gemma2Config)


def gemma3() -> Student:
    """Layers with and without one have rotary positions of their own."""
    return _windowed(Gemma3ForCausalLM, Gemma3TextConfig, layer_types=["sliding_attention", "full_attention"])


STUDENTS: dict[str, Callable[[], Student]] = {"t5": t5, "flan": flan, "bart": bart, "llama": llama, "gpt2": gpt2}
WINDOWED: dict[str, Callable[[], Student]] = {"mistral": mistral, "gemma2": gemma2, "gemma3": gemma3}
ALL_STUDENTS = STUDENTS | WINDOWED


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
