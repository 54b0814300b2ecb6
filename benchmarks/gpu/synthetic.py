"""Students and examples made from just sizes and a seed: no hub, no tokenizer file, no data set.

Weights are random, and so are token ids. Lengths are drawn around those of SVAMP with a teacher's rationales: inputs of
about 60 tokens, rationales of about 50, answers of two or three. A step's time depends on lengths, not on what is said.
"""

import copy
import functools
import random
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from models.configs import NewStudentConfig
from models.new_student import new_model
from models.student import DecoderOnlyStudent, EncoderDecoderStudent, Student
from models.student_training import Rationale, TrainingExample

SPECIAL = ("<pad>", "</s>", "<unk>")
VOCABULARY = 32_128  # a T5's
LONGEST = 512  # tokens of an input or a target
SHAPES = {
    "tiny": NewStudentConfig(hidden=64, layers=2, heads=4, intermediate=128),
    "tiny llama": NewStudentConfig(architecture="llama", hidden=64, layers=2, heads=4, intermediate=128),
    "small": NewStudentConfig(hidden=256, layers=2, heads=4, intermediate=1024, activation="relu"),
    "t5-small": NewStudentConfig(hidden=512, layers=6, heads=8, intermediate=2048, activation="relu"),
    "small llama": NewStudentConfig(architecture="llama", hidden=256, layers=4, heads=4, intermediate=768),
    "t5-base": NewStudentConfig(hidden=768, layers=12, heads=12, intermediate=3072, activation="relu"),
    "t5-base v1.1": NewStudentConfig(hidden=768, layers=12, heads=12, intermediate=2048, activation="gated-gelu"),
}


@dataclass(frozen=True)
class Lengths:
    """Mean lengths in tokens; each is drawn from a normal distribution with a quarter of its mean as deviation."""

    inputs: int = 60
    rationales: int = 50


def word_tokenizer(vocabulary: int) -> Any:
    """A tokenizer in which every token is a word, `w3` to `w{vocabulary - 1}`, so that texts and ids are the same."""
    words = [*SPECIAL, *(f"w{token}" for token in range(len(SPECIAL), vocabulary))]
    tokenizer = Tokenizer(WordLevel({word: token for token, word in enumerate(words)}, unk_token=SPECIAL[2]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=SPECIAL[0], eos_token=SPECIAL[1], unk_token=SPECIAL[2]
    )


def make_student(shape: str, vocabulary: int | None = None, dropout: float = 0.1) -> Student:
    """A student with random weights, in float32 on the CPU; its vocabulary is a T5's, or small for a tiny shape."""
    vocabulary = vocabulary or (512 if shape.startswith("tiny") else VOCABULARY)
    tokenizer, config = word_tokenizer(vocabulary), SHAPES[shape]
    kind = EncoderDecoderStudent if config.architecture == "t5" else DecoderOnlyStudent
    return kind(new_model(config, tokenizer, 2 * LONGEST, dropout), tokenizer, LONGEST, LONGEST)


@functools.cache
def original(shape: str) -> Student:
    """A student that is made once, which takes seconds, and only copied from."""
    return make_student(shape)


def student_on(device: torch.device, shape: str) -> Student:
    """A student of its own with the original's weights."""
    student = original(shape)
    model = copy.deepcopy(student.model).to(device)
    return type(student)(model, student.tokenizer, student.max_input_tokens, student.max_target_tokens)


def make_examples(
    count: int, seed: int, *, positives: int = 4, negatives: int = 2, vocabulary: int, answers: bool = True
) -> list[TrainingExample]:
    """Questions with so many rationales each, every one with a score of its own.

    Args:
        count: number of questions.
        seed: the same seed gives the same examples.
        answers: whether they have an answer target.
    """
    rng, lengths = random.Random(seed), Lengths()

    def ids(mean: float) -> list[int]:
        length = min(max(round(rng.gauss(mean, mean / 4)), 2), LONGEST)
        return [*(rng.randrange(len(SPECIAL), vocabulary) for _ in range(length - 1)), 1]  # the end token last

    def rationales(number: int, low: float, high: float) -> list[Rationale]:
        return [Rationale(ids(lengths.rationales), rng.uniform(low, high)) for _ in range(number)]

    found = []
    for _ in range(count):
        question = ids(lengths.inputs)
        prefix = [rng.randrange(len(SPECIAL), vocabulary) for _ in range(2)]
        found.append(
            TrainingExample(
                predict_ids=[prefix[0], *question],
                explain_ids=[prefix[1], *question],
                answer_ids=ids(2.5) if answers else None,
                positives=rationales(positives, 0.6, 0.95),
                negatives=rationales(negatives, 0.05, 0.4),
            )
        )
    return found


def make_texts(count: int, seed: int, vocabulary: int) -> list[str]:
    """Inputs as `word_tokenizer` reads them."""
    rng, mean = random.Random(seed), Lengths().inputs
    return [
        " ".join(
            f"w{rng.randrange(len(SPECIAL), vocabulary)}"
            for _ in range(min(max(round(rng.gauss(mean, mean / 4)), 2), LONGEST))
        )
        for _ in range(count)
    ]
