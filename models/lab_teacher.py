"""The lab's teacher: a small Llama trained from scratch on worked problems, saved as an ordinary model folder.

It receives (prompt, completion) texts and knows nothing about where they come from. What it saves is what any
Hugging Face model is: safetensors, config, tokenizer, generation config; vLLM serves it like any other.

A training sequence is `<s> prompt completion </s>`. The saved tokenizer puts `<s>` before every text, so vLLM
does too, and `</s>` ends a sample. The loss is taken on the completion and `</s>` only.
"""

import logging
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from models.configs import LabTeacherConfig
from models.cpu_linear import faster_linears
from models.errors import BadModel
from models.folders import whole_folder
from models.losses import IGNORED
from models.muon import Muon
from models.precision import emulated_settings, emulation_factor, emulation_warning, product_precision

logger = logging.getLogger(__name__)

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


class Progress(Protocol):
    """Called with the progress of a training run.

    Args:
        step, steps: optimizer steps done, and in all.
        loss: cross-entropy of the last step's completions, nats per token.
        tokens_per_s: real tokens (no padding) trained on per second since the start.
    """

    def __call__(self, step: int, steps: int, loss: float, tokens_per_s: float) -> None: ...


def build_tokenizer(texts: Iterable[str], vocab_size: int, max_tokens: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the texts: every digit is a token of its own, any text round-trips.

    Args:
        texts: what to learn the merges from.
        vocab_size: maximum number of tokens.
        max_tokens: the length it reports as the model's limit.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # all 256 bytes: nothing is ever unknown
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos_id = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bos_id)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=max_tokens,
        clean_up_tokenization_spaces=False,
    )


def build_model(config: LabTeacherConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained Llama; its weights come from torch's global random state.

    Raises:
        BadModel: `hidden` is not a multiple of `heads`.
    """
    if config.hidden % config.heads:
        raise BadModel(f"hidden ({config.hidden}) must be a multiple of heads ({config.heads}).")
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden,
            intermediate_size=config.intermediate,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            head_dim=config.hidden // config.heads,
            max_position_embeddings=config.max_tokens,
            tie_word_embeddings=True,
            **special,
        )
    )
    model.generation_config = GenerationConfig(max_new_tokens=config.max_tokens // 2, **special)
    return model


def train_lab_teacher(
    texts: Sequence[tuple[str, str]],
    folder: Path,
    config: LabTeacherConfig,
    on_progress: Progress | None = None,
    progress_every: int = 10,
    threads: int = 1,
) -> Path:
    """Trains the teacher on the CPU and saves it as `folder`, which exists only when it is complete.

    Args:
        texts: (prompt, completion) pairs; a prompt ends exactly where the teacher is to continue.
        folder: the model folder to create; an existing one is replaced.
        config: sizes, budget, seed. The same config and texts give the same weights on the same machine.
        on_progress: called after the first, every `progress_every`-th and the last step.
        progress_every: steps between two calls of `on_progress`.
        threads: number of torch threads during training.

    Raises:
        BadModel: no texts, a text longer than `max_tokens`, or sizes that do not fit together.
    """
    if not texts:
        raise BadModel("The lab's teacher needs at least one worked problem to train on; none was given.")
    tokenizer = build_tokenizer([part for pair in texts for part in pair], config.vocab_size, config.max_tokens)
    sequences = _tokenise(texts, tokenizer, config.max_tokens)
    if emulated := emulated_settings({"The lab teacher's dtype": config.dtype}):
        logger.warning(emulation_warning(emulated, emulation_factor()))
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random state alone
        torch.manual_seed(config.seed)
        model = build_model(config, tokenizer)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with faster_linears(model):
            _train(model, sequences, config, on_progress, progress_every)
    finally:
        torch.set_num_threads(before)
    save_model_folder(model, tokenizer, folder)
    return folder


@dataclass(frozen=True)
class _Sequence:
    """One tokenised pair: all ids with `<s>` and `</s>`, and how many of them are the prompt's."""

    ids: list[int]
    prompt_length: int


def _tokenise(texts: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerFast, max_tokens: int) -> list[_Sequence]:
    prompts = tokenizer([prompt for prompt, _ in texts])["input_ids"]  # begin with <s>, as vLLM will feed them
    completions = tokenizer([completion for _, completion in texts], add_special_tokens=False)["input_ids"]
    sequences = []
    for (text, _), prompt, completion in zip(texts, prompts, completions, strict=True):
        ids = [*prompt, *completion, tokenizer.eos_token_id]
        if len(ids) > max_tokens:
            raise BadModel(f"A worked problem has {len(ids)} tokens, max_tokens is {max_tokens}: {text[:80]!r}.")
        sequences.append(_Sequence(ids, len(prompt)))
    return sequences


def _batches(sequences: list[_Sequence], batch_size: int, seed: int) -> Iterator[list[_Sequence]]:
    """Batches without end: each pass is shuffled anew, and neighbours in length share a batch (little padding)."""
    order = random.Random(seed)  # noqa: S311 - the order of the data, no secret
    window = 16 * batch_size
    while True:
        shuffled = order.sample(sequences, len(sequences))
        for start in range(0, len(shuffled), window):
            near = sorted(shuffled[start : start + window], key=lambda sequence: len(sequence.ids))
            batches = [near[first : first + batch_size] for first in range(0, len(near), batch_size)]
            order.shuffle(batches)
            yield from batches


def _collate(batch: list[_Sequence], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Input ids padded on the right, and the labels: the same ids, prompt and padding left out."""
    longest = max(len(sequence.ids) for sequence in batch)
    ids = torch.full((len(batch), longest), pad_id)  # (B, T)
    labels = torch.full((len(batch), longest), IGNORED)  # (B, T)
    for row, sequence in enumerate(batch):
        length = len(sequence.ids)
        ids[row, :length] = torch.tensor(sequence.ids)
        labels[row, sequence.prompt_length : length] = ids[row, sequence.prompt_length : length]
    return ids, labels


def _train(
    model: LlamaForCausalLM,
    sequences: list[_Sequence],
    config: LabTeacherConfig,
    on_progress: Progress | None,
    progress_every: int,
) -> None:
    # Tied input and output embeddings and the one-dimensional norms are not what Muon is for.
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "embed" in name]
    rate = config.learning_rate
    optimizers = (
        Muon(matrices, rate, precision=getattr(torch, product_precision("cpu"))),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    )
    warmup = min(config.warmup_steps, config.steps - 1)

    def scale(step: int) -> float:
        """The share of the learning rate that step (from 0) is taken with."""
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return (config.steps - step) / (config.steps - warmup)

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, scale) for optimizer in optimizers]
    batches = _batches(sequences, config.batch_size, config.seed)
    model.train()
    tokens, started = 0, time.monotonic()
    for step in range(1, config.steps + 1):
        ids, labels = _collate(next(batches), model.config.pad_token_id)
        tokens += sum(int(count) for count in (ids != model.config.pad_token_id).sum(dim=1))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.dtype == "bfloat16"):
            # No attention mask: padding is on the right, so no real token can look at it.
            logits = model(input_ids=ids, use_cache=False).logits  # (B, T, V)
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        torch.autograd.backward(loss)  # what loss.backward() does, with type hints
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        if on_progress and (step in (1, config.steps) or step % progress_every == 0):
            on_progress(step, config.steps, loss.item(), tokens / (time.monotonic() - started))
    model.eval()


def save_model_folder(model: Any, tokenizer: Any, folder: Path) -> None:
    """Saves model and tokenizer so that `folder` is either complete or absent.

    Everything is written to a sibling `.NAME.partial-PID`, flushed to the disk and renamed. A process killed in
    between leaves at most such a sibling; `folder` keeps what it held before.
    """
    transformers_logging.disable_progress_bar()  # one shard is no progress to show
    with whole_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
