"""Students from a configuration: loaded from a folder or a model hub, or made new.

Weights are read from safetensors only and no code of a model repository is run: a pickle may run code too.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)
from transformers.utils import logging as transformers_logging

from models.configs import NEW, NewStudentConfig, StudentConfig
from models.errors import BadStudent, ModelError
from models.folders import ADAPTER_FILE
from models.lora import NAME, add_lora, has_lora
from models.new_student import new_model, new_tokenizer, set_dropout
from models.revision import model_revision
from models.student import STUDENT_FILE, BaseModelNote, DecoderOnlyStudent, EncoderDecoderStudent, Student


def make_student(config: StudentConfig, texts: Iterable[str] = ()) -> Student:
    """The student that a configuration names.

    Args:
        config: all about it.
        texts: inputs and targets it will see; a new student without `tokenizer` learns its tokenizer from them.

    Raises:
        BadStudent: there is no such model, or it cannot be a student.
    """
    if config.model != NEW:
        return load_student(config.model, config)
    new, longest = config.new or NewStudentConfig(), config.max_input_tokens + config.max_target_tokens
    tokenizer = new_tokenizer(new, config.tokenizer, texts, longest)
    model = new_model(new, tokenizer, longest, config.dropout)
    return _student(model.to(getattr(torch, config.dtype)), tokenizer, config)


def load_student(model: str | Path, config: StudentConfig | None = None) -> Student:
    """A student from a folder (also one that `Student.save` wrote) or a hub id, in evaluation mode on the CPU.

    Args:
        model: the folder or hub id.
        config: dtype, dropout, limits and adapters; its `model`, `new` and `tokenizer` do not matter here, so a run's
            own config loads its checkpoints. None: the limits that were saved, else the defaults.

    Raises:
        BadStudent: missing, without safetensors, damaged, or not a model that can be a student.
    """
    name, folder = str(model), Path(model)
    note = _read_note(folder)
    if config is None:
        limits = {key: note[key] for key in ("max_input_tokens", "max_target_tokens") if key in note}
        config = StudentConfig(model=name, **limits)
    base = BaseModelNote(name, config.revision if name == config.model else None, model_revision(name))
    adapted = (folder / ADAPTER_FILE).is_file()
    if adapted:
        base = _noted_base(folder, note)
    _refuse_pickles(folder, "adapter_model.safetensors" if adapted else "*.safetensors")
    network = _load_model(base, config)
    revision = {"revision": base.revision} if base.model == name and base.revision else {}
    tokenizer = _translate(name, lambda: AutoTokenizer.from_pretrained(name, trust_remote_code=False, **revision))
    if adapted:
        _translate(name, lambda: network.load_adapter(name, NAME, is_trainable=True))
    elif config.lora:
        add_lora(network, config.lora)
    student = _student(network.eval(), tokenizer, config)
    student.base = base if has_lora(network) else None
    return student


def _student(model: Any, tokenizer: Any, config: StudentConfig) -> Student:
    kind = EncoderDecoderStudent if model.config.is_encoder_decoder else DecoderOnlyStudent
    return kind(model, tokenizer, config.max_input_tokens, config.max_target_tokens)


def _load_model(base: BaseModelNote, config: StudentConfig) -> Any:
    name, where = base.model, {"revision": base.revision} if base.revision else {}
    settings = _translate(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=False, **where))
    if config.dropout is not None:
        set_dropout(settings, config.dropout)
    auto = AutoModelForSeq2SeqLM if settings.is_encoder_decoder else AutoModelForCausalLM
    _refuse_other_kinds(name, settings)
    transformers_logging.disable_progress_bar()
    model, loading = _translate(
        name,
        lambda: auto.from_pretrained(
            name,
            config=settings,
            dtype=getattr(torch, config.dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **where,
        ),
    )
    if missing := sorted(loading["missing_keys"]):
        raise BadStudent(
            f"{name!r} has no weights for {missing[0]} ({len(missing)} missing): it was not saved as a text-writing "
            f"{type(model).__name__}. Take a model with its language-model head."
        )
    return model


def _refuse_other_kinds(name: str, settings: Any) -> None:
    """Only models that write text can be students."""
    kind = type(settings)
    if settings.is_encoder_decoder:
        writes = kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    else:  # BERT and its like are in the causal mapping too, for those who made decoders of them
        encoder_only = kind in MODEL_FOR_MASKED_LM_MAPPING and not getattr(settings, "is_decoder", False)
        writes = kind in MODEL_FOR_CAUSAL_LM_MAPPING and not encoder_only
    if not writes:
        raise BadStudent(
            f"{name!r} ({settings.model_type}) writes no text, so it can be no student. Take an encoder-decoder (T5, "
            "Flan-T5, BART) or a decoder-only model (Llama, Qwen, SmolLM2)."
        )


def _refuse_pickles(folder: Path, weights: str) -> None:
    """A local folder must hold safetensors; of a hub model transformers finds out itself."""
    if folder.is_dir() and not any(folder.glob(weights)):
        pickles = sorted(path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt")))
        found = f"only {pickles[0]}, a pickle, which may run code when it is read" if pickles else "none"
        raise BadStudent(f"{str(folder)!r} must hold its weights as safetensors; there is {found}. Save it again.")


def _read_note(folder: Path) -> dict[str, Any]:
    """What `Student.save` noted; empty for models from elsewhere."""
    file = folder / STUDENT_FILE
    if not file.is_file():
        return {}
    try:
        note: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadStudent(f"{str(file)!r} is damaged ({error}); take another checkpoint.") from error
    return note


def _noted_base(folder: Path, note: dict[str, Any]) -> BaseModelNote:
    """The model that a folder's adapters belong to, as long as it is still the same."""
    if not note.get("base"):
        raise BadStudent(f"{str(folder)!r} holds adapters, but no {STUDENT_FILE} that names their model.")
    base = BaseModelNote(**note["base"])
    if base.fingerprint != model_revision(base.model):
        raise BadStudent(
            f"The adapters in {str(folder)!r} belong to {base.model!r}, which is gone or has changed; put it back."
        )
    return base


def loaded(name: str, load: Callable[[], Any], refuse: Callable[[str], ModelError]) -> Any:
    """Loads, and turns what transformers and safetensors raise into one line.

    Args:
        name: the folder or hub id.
        load: loads it.
        refuse: makes the error of the line's text.
    """
    try:
        return load()
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        where = "cannot be loaded" if Path(name).exists() else "is no folder here, and no hub model that was reached"
        raise refuse(f"{name!r} {where}: {reason}") from error


def _translate(name: str, load: Callable[[], Any]) -> Any:
    return loaded(name, load, lambda text: BadStudent(f"Student {text}"))
