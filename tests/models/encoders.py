"""Tiny encoders that are no T5's, with random weights, in folders as they are published."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    DistilBertConfig,
    ModernBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from models.lab_teacher import build_tokenizer
from tests.models.students import QUESTIONS, RATIONALES

LONGEST = 150  # tokens that the tiny encoders take
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def words(**special: str | None) -> Any:
    """A byte-level tokenizer with BERT's special tokens: no end token, but a separator."""
    backend = build_tokenizer([*QUESTIONS, *RATIONALES], 300, 256).backend_tokenizer
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"} | special
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{name: token for name, token in names.items() if token})


def config_of(kind: str, tokens: Any, longest: int = LONGEST) -> Any:
    shared: dict[str, Any] = {"vocab_size": len(tokens), "pad_token_id": tokens.pad_token_id, "initializer_range": 0.2}
    match kind:
        case "bert":
            return BertConfig(**SIZES, **shared, max_position_embeddings=longest)
        case "distilbert":
            sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
            return DistilBertConfig(**sizes, **shared, max_position_embeddings=longest)
        case "roberta":  # the first positions, up to that of the padding token, are never used
            positions = longest + tokens.pad_token_id + 1
            return RobertaConfig(**SIZES, **shared, max_position_embeddings=positions, type_vocab_size=1)
    special = {"cls_token_id": tokens.cls_token_id, "sep_token_id": tokens.sep_token_id}
    special |= {"bos_token_id": tokens.cls_token_id, "eos_token_id": tokens.sep_token_id}
    return ModernBertConfig(**SIZES, **shared, **special, max_position_embeddings=longest, local_attention=16)


def save_encoder(kind: str, folder: Path, longest: int = LONGEST) -> Path:
    """A pretrained encoder with the output layer that filled its gaps, and its tokenizer."""
    special = {"eos_token": "[SEP]", "bos_token": "[CLS]"} if kind == "roberta" else {}
    tokens = words(**special)
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(config_of(kind, tokens, longest)).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder
