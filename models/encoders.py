"""Encoders that the discriminator can be built on: the encoder of a T5, or a model that is one, such as BERT.

Weights are read from safetensors only and no code of a model repository is run, as for students.
"""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, MT5EncoderModel, T5EncoderModel, UMT5EncoderModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING, MODEL_MAPPING
from transformers.utils import logging as transformers_logging

from models.errors import BadDiscriminator
from models.new_student import set_dropout
from models.student_loading import loaded

T5_ENCODERS = {"t5": T5EncoderModel, "mt5": MT5EncoderModel, "umt5": UMT5EncoderModel}
"""The encoder classes of these model types."""
EXAMPLES = "a T5, BERT, DistilBERT, RoBERTa, ModernBERT or MiniLM sentence encoder"


def load_encoder(name: str, dropout: float | None = None) -> Any:
    """An encoder from a folder or hub id, in float32 and evaluation mode on the CPU.

    Args:
        name: a model that is an encoder, or a T5, whose decoder is left out.
        dropout: share of activations dropped in training; None: the encoder's own.

    Raises:
        BadDiscriminator: it is missing, damaged, without safetensors or some of its weights, or has no encoder.
        BadStudent: it has no dropout to set.
    """
    settings = translate(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=False))
    kind = _kind(settings)
    if kind is None:
        raise BadDiscriminator(
            f"discriminator.encoder {name!r} is a {settings.model_type}, from which no encoder can be taken. Allowed: "
            f"'student', 'new', or the folder or hub id of {EXAMPLES}."
        )
    if dropout is not None:
        set_dropout(settings, dropout)
    load = {"config": settings, "dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
    with _quiet():
        encoder, found = translate(
            name, lambda: kind.from_pretrained(name, output_loading_info=True, **load, **_without_pooler(kind))
        )
    if missing := sorted(found["missing_keys"]):
        raise BadDiscriminator(
            f"Discriminator: {name!r} has no weights for {missing[0]} ({len(missing)} missing). Take a folder that "
            f"holds all of the {settings.model_type}."
        )
    return encoder.eval()


def load_encoder_tokenizer(name: str) -> Any:
    """The tokenizer of a folder or hub id.

    Raises:
        BadDiscriminator: it has none, or a damaged one.
    """
    return translate(name, lambda: AutoTokenizer.from_pretrained(name, trust_remote_code=False))


def encoder_of(model: Any, dropout: float | None = None) -> Any:
    """A copy of a transformers model's encoder, in float32 and evaluation mode.

    Raises:
        BadDiscriminator: it has none that can stand alone.
        BadStudent: it has no dropout to set.
    """
    composed = model.config.model_type == "encoder-decoder"  # of two whole models, such as two BERTs
    source = model.get_encoder() if composed else model
    settings = copy.deepcopy(source.config)
    kind = _kind(settings)
    if kind is None:
        raise BadDiscriminator(
            f"discriminator.encoder 'student' copies the student's encoder, and from a {settings.model_type} none can "
            f"be taken. Set it to 'new', or to the folder or hub id of {EXAMPLES}."
        )
    if dropout is not None:
        set_dropout(settings, dropout)
    encoder = kind(settings, **_without_pooler(kind))
    weights = source.state_dict()
    encoder.load_state_dict({name: weights[name] for name in encoder.state_dict()})
    return encoder.eval()


def longest_input(encoder: Any) -> int | None:
    """Tokens that an encoder takes at once; None where there is no limit, as in a T5, whose positions are relative."""
    known: int | None = getattr(encoder.config, "max_position_embeddings", None)
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    unused = getattr(table, "padding_idx", None)  # RoBERTa and its like number positions from padding_idx + 1
    return known if known is None or unused is None else known - unused - 1


def has_segments(encoder: Any) -> bool:
    """Whether an encoder is told which of two texts a token belongs to (token_type_ids)."""
    return getattr(encoder.config, "type_vocab_size", 0) > 1 and _takes(type(encoder).forward, "token_type_ids")


def translate(name: str, load: Callable[[], Any]) -> Any:
    """Loads, and turns what transformers and safetensors raise into one line.

    Raises:
        BadDiscriminator: that line.
    """
    return loaded(name, load, lambda text: BadDiscriminator(f"Discriminator: {text}"))


def _kind(settings: Any) -> Any:
    """The class of an encoder with such a configuration; None if there is none."""
    if settings.model_type in T5_ENCODERS:
        return T5_ENCODERS[settings.model_type]
    # Encoders are what was pretrained by filling gaps. BERT may also have been made a decoder.
    other = settings.is_encoder_decoder or getattr(settings, "is_decoder", False)
    if other or type(settings) not in MODEL_FOR_MASKED_LM_MAPPING:
        return None
    kind = MODEL_MAPPING[type(settings)]
    kind = kind[0] if isinstance(kind, tuple) else kind
    return kind if _takes(kind.forward, "input_ids", "attention_mask") else None  # FNet cannot leave out padding


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is printed about weights that are not the encoder's; those it lacks are refused anyway."""
    transformers_logging.disable_progress_bar()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _without_pooler(kind: Any) -> dict[str, bool]:
    """Arguments for a class: without the layer over the first token, which would never be trained."""
    return {"add_pooling_layer": False} if _takes(kind.__init__, "add_pooling_layer") else {}


def _takes(function: Any, *names: str) -> bool:
    return set(names) <= inspect.signature(function).parameters.keys()
