"""The discriminator D(x, r) in (0, 1), the paper's "quality judge": how good a rationale of a question is
(docs/distillation.md). An encoder, in the paper a T5's, reads

    question </s> rationale </s>              a T5's
    [CLS] question [SEP] rationale [SEP]      BERT's and others', in the words of their own tokenizers

its outputs are max-pooled over the real tokens, and two linear layers and a sigmoid make a score of that. The
activation between the layers (ReLU) and their width (the encoder's) are ours; the paper does not name them.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils import logging as transformers_logging

from models.configs import NEW, OF_THE_STUDENT, DiscriminatorConfig, NewStudentConfig
from models.cpu_linear import faster_linears
from models.encoders import (
    T5_ENCODERS,
    encoder_of,
    has_segments,
    load_encoder,
    load_encoder_tokenizer,
    longest_input,
    translate,
)
from models.errors import BadDiscriminator, TextTooLong
from models.folders import whole_folder
from models.lora import has_lora, merged
from models.new_student import new_model
from models.student import Student, pad

HEAD, SETTINGS = "head.safetensors", "discriminator.json"


class Discriminator(torch.nn.Module):
    """D(x, r).

    Args:
        encoder: from `models.encoders`.
        tokenizer: its tokenizer, with an end or a separator token.
        hidden: width between the two linear layers.
        max_tokens: `score` refuses longer pairs; an encoder that takes fewer tokens lowers it.

    Raises:
        BadDiscriminator: the tokenizer has neither token.
    """

    def __init__(self, encoder: Any, tokenizer: Any, hidden: int, max_tokens: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.limit = longest_input(encoder)
        self.max_tokens = max_tokens if self.limit is None else min(max_tokens, self.limit)
        self.first = torch.nn.Linear(encoder.config.hidden_size, hidden)
        self.second = torch.nn.Linear(hidden, 1)
        end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        if end is None:
            raise BadDiscriminator(
                f"The tokenizer of the discriminator's {encoder.config.model_type} has neither an end nor a separator "
                "token to put between question and rationale; add one to it (eos_token or sep_token)."
            )
        self.end_id: int = end
        self.pad_id: int = self.end_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self._segments = has_segments(encoder)
        self._of_a_t5 = encoder.config.model_type in T5_ENCODERS
        first = None if self._of_a_t5 else tokenizer.cls_token_id
        self._before: list[int] = [] if first is None else [first]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.second.weight.device

    def pair_ids(self, questions: Sequence[str], rationales: Sequence[str]) -> list[list[int]]:
        """Token ids of (question, rationale) pairs; never cut.

        Args:
            questions: as the student reads them, without a prefix.
            rationales: one for each of them; may be empty texts.
        """
        pairs = zip(self._ids(questions), self._ids(rationales), strict=True)
        return [[*self._before, *question, self.end_id, *rationale, self.end_id] for question, rationale in pairs]

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The score before its sigmoid.

        Args:
            ids: (N, S) from `pair_ids`, padded on the right.
            mask: (N, S), True for real tokens; each row has one.

        Returns:
            (N,) float32 at least.
        """
        inputs = {"input_ids": ids, "attention_mask": mask.long()}
        if self._segments:  # 0 up to the question's end, then 1
            ends = (ids == self.end_id).long()
            inputs["token_type_ids"] = (ends.cumsum(1) - ends).clamp(max=1)
        states = self.encoder(**inputs).last_hidden_state  # (N, S, H)
        pooled = states.masked_fill(~mask[:, :, None], -torch.inf).amax(dim=1)  # (N, H)
        logits: Tensor = self.second(torch.relu(self.first(pooled))).squeeze(-1)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    @torch.no_grad()
    def score(self, questions: Sequence[str], rationales: Sequence[str], batch_tokens: int = 16_384) -> Tensor:
        """Quality of each rationale, without gradients and without dropout.

        Args:
            questions, rationales: as for `pair_ids`.
            batch_tokens: maximum tokens per batch, padding included (one pair may have more).

        Returns:
            (N,) float32 on the CPU, in the order given, each in [0, 1].

        Raises:
            TextTooLong: a pair has more than `max_tokens` tokens.
        """
        rows = self.pair_ids(questions, rationales)
        self._refuse_long(rows, questions)
        scores = torch.empty(len(rows))
        training = self.training
        self.eval()
        try:
            with faster_linears(self):
                for places in _batches([len(row) for row in rows], batch_tokens):
                    ids, mask = pad([rows[place] for place in places], self.pad_id)
                    scores[places] = self(ids.to(self.device), mask.to(self.device)).sigmoid().float().cpu()
        finally:
            self.train(training)
        return scores

    def save(self, folder: Path) -> None:
        """Saves all that `load_discriminator` needs; `folder` is complete or absent; an old one is replaced."""
        settings = {"hidden": self.first.out_features, "max_tokens": self.max_tokens}
        head = {f"{name}.{key}": value for name in ("first", "second") for key, value in self._layer(name).items()}
        transformers_logging.disable_progress_bar()
        with whole_folder(folder) as partial:
            self.encoder.save_pretrained(partial)
            self.tokenizer.save_pretrained(partial)
            save_file(head, partial / HEAD)
            (partial / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _layer(self, name: str) -> dict[str, Tensor]:
        return {key: value.cpu().contiguous() for key, value in self.get_submodule(name).state_dict().items()}

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        # A "[SEP]" that somebody wrote into a text is text. (T5's read theirs as they always have.)
        plain = {} if self._of_a_t5 else {"split_special_tokens": True}
        return self.tokenizer(list(texts), add_special_tokens=False, **plain)["input_ids"] if texts else []

    def _refuse_long(self, rows: list[list[int]], questions: Sequence[str]) -> None:
        long = [place for place, row in enumerate(rows) if len(row) > self.max_tokens]
        if long:
            worst = max(long, key=lambda place: len(rows[place]))
            raising = "" if self.max_tokens == self.limit else "Raise discriminator.max_tokens or "
            advice = f"{raising}leave these rationales out."
            raise TextTooLong(
                f"{len(long)} of {len(rows)} questions with their rationale have more than {self.max_tokens} tokens; "
                f"the longest, of {len(rows[worst])}, begins {questions[worst][:60]!r}. {advice[0].upper()}{advice[1:]}"
            )


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Row indices, longest first, as many per batch as fit with their padding."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    start = 0
    while start < len(order):
        count = max(1, batch_tokens // lengths[order[start]])
        yield order[start : start + count]
        start += count


def make_discriminator(config: DiscriminatorConfig, student: Student) -> Discriminator:
    """The untrained discriminator that a configuration names, in float32 and evaluation mode on the CPU.

    Args:
        config: which one.
        student: gives its encoder's weights where `encoder` is "student", and its tokenizer there and for "new".

    Raises:
        BadDiscriminator: there is no such encoder, or none can be taken from that model.
    """
    tokenizer = student.tokenizer
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random state alone
        if config.encoder == OF_THE_STUDENT:
            encoder = encoder_of(merged(student.model) if has_lora(student.model) else student.model, config.dropout)
        elif config.encoder == NEW:
            model = new_model(config.new or NewStudentConfig(), tokenizer, config.max_tokens)
            encoder = encoder_of(model, config.dropout)
        else:
            encoder = load_encoder(config.encoder, config.dropout)
            tokenizer = load_encoder_tokenizer(config.encoder)
        torch.manual_seed(config.seed)
        return Discriminator(encoder, tokenizer, config.hidden or encoder.config.hidden_size, config.max_tokens).eval()


def load_discriminator(folder: Path) -> Discriminator:
    """A discriminator that `Discriminator.save` wrote, in evaluation mode on the CPU.

    Raises:
        BadDiscriminator: it is missing or damaged.
    """
    if not (folder / SETTINGS).is_file():
        raise BadDiscriminator(f"{str(folder)!r} holds no discriminator: it has no {SETTINGS}.")
    encoder, tokenizer = load_encoder(str(folder)), load_encoder_tokenizer(str(folder))

    def head_and_all() -> Discriminator:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        discriminator = Discriminator(encoder, tokenizer, settings["hidden"], settings["max_tokens"])
        head = load_file(folder / HEAD)
        for name in ("first", "second"):
            layer = {key.removeprefix(f"{name}."): value for key, value in head.items() if key.startswith(f"{name}.")}
            discriminator.get_submodule(name).load_state_dict(layer)
        return discriminator.eval()

    discriminator: Discriminator = translate(str(folder), head_and_all)
    return discriminator
