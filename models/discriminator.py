"""The discriminator D(x, r) in (0, 1), the paper's "quality judge": how good a rationale of a question is
(docs/distillation.md). A T5 encoder reads

    question </s> rationale </s>

its outputs are max-pooled over the real tokens, and two linear layers and a sigmoid make a score of that. The
activation between the layers (ReLU) and their width (the encoder's) are ours; the paper does not name them.
"""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, T5EncoderModel
from transformers.utils import logging as transformers_logging

from models.configs import NEW, OF_THE_STUDENT, DiscriminatorConfig, NewStudentConfig
from models.cpu_linear import faster_linears
from models.errors import BadDiscriminator, TextTooLong
from models.folders import whole_folder
from models.lora import has_lora, merged
from models.new_student import new_model, set_dropout
from models.student import Student, pad
from models.student_loading import loaded

HEAD, SETTINGS = "head.safetensors", "discriminator.json"


class Discriminator(torch.nn.Module):
    """D(x, r).

    Args:
        encoder: a transformers T5EncoderModel.
        tokenizer: its tokenizer, with an end token.
        hidden: width between the two linear layers.
        max_tokens: `score` refuses longer pairs.
    """

    def __init__(self, encoder: Any, tokenizer: Any, hidden: int, max_tokens: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.first = torch.nn.Linear(encoder.config.d_model, hidden)
        self.second = torch.nn.Linear(hidden, 1)
        self.eos_id: int = tokenizer.eos_token_id
        self.pad_id: int = self.eos_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

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
        return [[*question, self.eos_id, *rationale, self.eos_id] for question, rationale in pairs]

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The score before its sigmoid.

        Args:
            ids: (N, S) from `pair_ids`, padded on the right.
            mask: (N, S), True for real tokens; each row has one.

        Returns:
            (N,) float32 at least.
        """
        states = self.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state  # (N, S, H)
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
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []

    def _refuse_long(self, rows: list[list[int]], questions: Sequence[str]) -> None:
        long = [place for place, row in enumerate(rows) if len(row) > self.max_tokens]
        if long:
            worst = max(long, key=lambda place: len(rows[place]))
            raise TextTooLong(
                f"{len(long)} of {len(rows)} questions with their rationale have more than {self.max_tokens} tokens; "
                f"the longest, of {len(rows[worst])}, begins {questions[worst][:60]!r}. Raise discriminator.max_tokens "
                "or leave these rationales out."
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
        BadDiscriminator: the encoder is not a T5's, or does not exist.
    """
    tokenizer = student.tokenizer
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random state alone
        if config.encoder == OF_THE_STUDENT:
            encoder = _encoder_of(merged(student.model) if has_lora(student.model) else student.model, config.dropout)
        elif config.encoder == NEW:
            model = new_model(config.new or NewStudentConfig(), tokenizer, config.max_tokens)
            encoder = _encoder_of(model, config.dropout)
        else:
            encoder, tokenizer = _load_encoder(config.encoder, config.dropout), _load_tokenizer(config.encoder)
        torch.manual_seed(config.seed)
        return Discriminator(encoder, tokenizer, config.hidden or encoder.config.d_model, config.max_tokens).eval()


def load_discriminator(folder: Path) -> Discriminator:
    """A discriminator that `Discriminator.save` wrote, in evaluation mode on the CPU.

    Raises:
        BadDiscriminator: it is missing or damaged.
    """
    if not (folder / SETTINGS).is_file():
        raise BadDiscriminator(f"{str(folder)!r} holds no discriminator: it has no {SETTINGS}.")
    encoder, tokenizer = _load_encoder(str(folder)), _load_tokenizer(str(folder))

    def head_and_all() -> Discriminator:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        discriminator = Discriminator(encoder, tokenizer, settings["hidden"], settings["max_tokens"])
        head = load_file(folder / HEAD)
        for name in ("first", "second"):
            layer = {key.removeprefix(f"{name}."): value for key, value in head.items() if key.startswith(f"{name}.")}
            discriminator.get_submodule(name).load_state_dict(layer)
        return discriminator.eval()

    discriminator: Discriminator = _translate(str(folder), head_and_all)
    return discriminator


def _encoder_of(model: Any, dropout: float | None) -> Any:
    """A copy of a T5's encoder, in float32."""
    if model.config.model_type != "t5":
        raise BadDiscriminator(
            f"discriminator.encoder 'student' copies the encoder of a T5, and this student is a "
            f"{model.config.model_type}. Set it to 'new', or to the folder or hub id of a T5."
        )
    settings = copy.deepcopy(model.config)
    if dropout is not None:
        set_dropout(settings, dropout)
    encoder = T5EncoderModel(settings)
    weights = {name: weight for name, weight in model.state_dict().items() if name.startswith(("shared.", "encoder."))}
    encoder.load_state_dict(weights)
    return encoder.eval()


def _load_encoder(name: str, dropout: float | None = None) -> Any:
    settings = _translate(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=False))
    if settings.model_type != "t5":
        raise BadDiscriminator(
            f"discriminator.encoder {name!r} is a {settings.model_type}, not a T5. Allowed: 'student', 'new', or the "
            "folder or hub id of a T5."
        )
    if dropout is not None:
        set_dropout(settings, dropout)
    transformers_logging.disable_progress_bar()
    load = {"config": settings, "dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
    return _translate(name, lambda: T5EncoderModel.from_pretrained(name, **load).eval())


def _load_tokenizer(name: str) -> Any:
    return _translate(name, lambda: AutoTokenizer.from_pretrained(name, trust_remote_code=False))


def _translate(name: str, load: Callable[[], Any]) -> Any:
    return loaded(name, load, lambda text: BadDiscriminator(f"Discriminator: {text}"))
