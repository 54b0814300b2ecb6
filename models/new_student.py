"""A small student with random weights, for machines with no model hub: a T5 or a Llama, with a tokenizer that is
given or trained on the texts.

The defaults make the lab's student, a T5 of 1.1 million parameters. A hub model's vocabulary of 32,000 tokens would
make the embeddings alone four times that.
"""

from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from models.configs import NewStudentConfig
from models.errors import BadStudent
from models.lab_teacher import build_tokenizer

# As a T5 config names them. "gated-gelu" there means the same function in seven steps; this one is computed in one.
ACTIVATIONS = {"gated-gelu": "gated-gelu_pytorch_tanh", "relu": "relu"}
DROPOUT_NAMES = (
    *("dropout_rate", "dropout", "attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),  # BERT and its like
    *("embedding_dropout", "mlp_dropout"),  # ModernBERT
)


def new_tokenizer(config: NewStudentConfig, folder: str | None, texts: Iterable[str], max_tokens: int) -> Any:
    """The tokenizer of a new student.

    Args:
        config: its `vocab_size` bounds a tokenizer that is trained.
        folder: a folder (or hub id) with a tokenizer; None trains one on the texts.
        texts: inputs and targets that the student will see; may be empty where a folder is given.
        max_tokens: the length that a trained tokenizer reports as its limit.

    Raises:
        BadStudent: neither a tokenizer nor texts, or a tokenizer without end or padding token.
    """
    if folder is None:
        texts = iter(texts)
        first = list(islice(texts, 1))
        if not first:
            raise BadStudent("A new student needs a tokenizer: give a folder as `tokenizer`, or texts to train one on.")
        return build_tokenizer(chain(first, texts), config.vocab_size, max_tokens)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        where = "is no tokenizer folder" if Path(folder).is_dir() else "is no folder, and no hub model that was reached"
        raise BadStudent(f"No tokenizer: {folder!r} {where}. Give a folder with a tokenizer.json.") from error
    for name in ("eos_token", "pad_token"):
        if getattr(tokenizer, name) is None:
            raise BadStudent(f"The tokenizer in {folder!r} has no {name}; a student needs one. Take another tokenizer.")
    return tokenizer


def new_model(config: NewStudentConfig, tokenizer: Any, max_tokens: int, dropout: float | None = None) -> Any:
    """The model with random weights, in float32 and evaluation mode. The caller's random state is left alone.

    Args:
        config: the sizes.
        tokenizer: decides the vocabulary and the special tokens.
        max_tokens: longest sequence of a Llama, input and target together; a T5 has no such limit.
        dropout: share of activations left out in training; None leaves the architecture's own (T5 0.1, Llama 0).

    Raises:
        BadStudent: `hidden` is not a multiple of `heads`.
    """
    if config.hidden % config.heads:
        raise BadStudent(f"hidden ({config.hidden}) must be a multiple of heads ({config.heads}).")
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    if config.architecture == "t5":
        special |= {"decoder_start_token_id": tokenizer.pad_token_id}  # T5's convention
        settings = _t5_config(config, len(tokenizer), special)
    else:
        special |= {"bos_token_id": tokenizer.bos_token_id}
        settings = _llama_config(config, len(tokenizer), max_tokens, special)
    if dropout is not None:
        set_dropout(settings, dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        # Initialised as transformers does. Of the lab's labels a T5 had 41% right after 700 steps; with embeddings of
        # 0.3 times that size 18%, of twice 36%.
        model = (T5ForConditionalGeneration if config.architecture == "t5" else LlamaForCausalLM)(settings)
    model.generation_config = GenerationConfig(**special)
    return model.eval()


def set_dropout(settings: Any, dropout: float) -> None:
    """Sets every dropout that a transformers config has, under whatever name its architecture gives it.

    Raises:
        BadStudent: it has none.
    """
    names = [name for name in DROPOUT_NAMES if hasattr(settings, name)]
    if not names:
        raise BadStudent(f"A {settings.model_type} has no dropout to set; leave `dropout` out.")
    for name in names:
        setattr(settings, name, dropout)


def _t5_config(config: NewStudentConfig, vocab_size: int, special: dict[str, int]) -> T5Config:
    return T5Config(
        vocab_size=vocab_size,
        d_model=config.hidden,
        d_kv=config.hidden // config.heads,
        d_ff=config.intermediate,
        num_layers=config.layers,
        num_heads=config.heads,
        feed_forward_proj=ACTIVATIONS[config.activation],
        **special,
    )


def _llama_config(config: NewStudentConfig, vocab_size: int, max_tokens: int, special: dict[str, int]) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=config.hidden,
        intermediate_size=config.intermediate,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=max_tokens,
        tie_word_embeddings=True,
        **special,
    )
