"""Bad rationales made from good ones, so that the discriminator sees as many negatives as positives
(docs/distillation.md): random words are masked, others are replaced by random words of other rationales.

Words are separated by whitespace. As in the paper every word is treated alike: a number is not preferred, and may be
replaced by any word. The paper does not say how many words it changes; the default shares are ours.
"""

import re
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SENTINEL = "<extra_id_0>"  # what T5 saw in place of words left out when it was pretrained
PLAIN_MASK = "_"


class CorruptionConfig(BaseModel):
    """How many words of a rationale are corrupted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    masked: float = Field(default=0.15, ge=0, le=1, description="Probability that a word is masked.")
    replaced: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="Probability that a word is replaced. At least one word of a text always changes.",
    )

    @model_validator(mode="after")
    def _something_changes(self) -> Self:
        if not 0 < self.masked + self.replaced <= 1:
            raise ValueError(
                f"masked ({self.masked:g}) and replaced ({self.replaced:g}) must add up to more than 0 and at most 1"
            )
        return self


def mask_word(tokenizer: Any) -> str:
    """What a masked word becomes: T5's first sentinel where the tokenizer has it as one token, else "_"."""
    return SENTINEL if SENTINEL in tokenizer.get_vocab() else PLAIN_MASK


def words_of(texts: Iterable[str]) -> list[str]:
    """The different words of texts, sorted: what replacements are drawn from."""
    return sorted({word for text in texts for word in text.split()})


def corrupt(text: str, words: Sequence[str], mask: str, config: CorruptionConfig, rng: Random) -> str:
    """Corrupts one text; the result always differs from the original.

    Args:
        text: a rationale; blanks and line breaks stay where they are.
        words: replacements, from `words_of` other rationales; where there is no other word, the mask is used.
        mask: from `mask_word`.
        config: how many words change.
        rng: decides everything; the same state gives the same text.
    """
    parts = re.split(r"(\s+)", text)  # words at even indices, whitespace between them
    places = [place for place in range(0, len(parts), 2) if parts[place]]
    share = config.masked + config.replaced
    chosen = [place for place in places if rng.random() < share] or ([rng.choice(places)] if places else [])
    for place in chosen:
        replaced = words and rng.random() * share >= config.masked
        word = rng.choice(words) if replaced else mask
        parts[place] = mask if word == parts[place] else word
    corrupted = "".join(parts)
    # An empty text, or one whose chosen words were already masks, gets one more mask.
    return corrupted if corrupted != text else f"{text} {mask}".strip()


def balancing_negatives(
    positives: Sequence[str],
    negatives: Sequence[str],
    words: Sequence[str],
    mask: str,
    config: CorruptionConfig,
    seed: int,
) -> list[str]:
    """As many corrupted positives as one example lacks negatives, or none where it has enough.

    Args:
        positives, negatives: the example's different rationales.
        words, mask, config: see `corrupt`.
        seed: a different one for each example and round.

    Returns:
        max(0, len(positives) - len(negatives)) texts; none repeats a positive.
    """
    rng = Random(seed)  # noqa: S311 - which words change, no secret
    made = []
    for number in range(len(positives) - len(negatives)):
        text = corrupt(positives[number], words, mask, config, rng)
        while text in positives:  # one positive may differ from another by a word
            text = f"{text} {mask}"
        made.append(text)
    return made
