"""Corrupted positives: always another text, from the seed alone, with about the share of words that was asked for."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from models.corruption import CorruptionConfig, balancing_negatives, corrupt, mask_word, words_of

TEXT = "Ann has 3 apples and buys 12 more, so 3 + 12 = 15.\nSo the answer is 15."
WORDS = words_of(["Ben loses 4 marbles, so 9 - 4 = 5.", "So the answer is 5."])
TEXTS = st.lists(st.sampled_from(["Ann", "15.", "_", " ", "\n", "é", ""]), max_size=12).map("".join) | st.text()


@st.composite
def configs(draw: st.DrawFn) -> CorruptionConfig:
    masked = draw(st.floats(0, 1))
    return CorruptionConfig(masked=masked, replaced=draw(st.floats(0 if masked > 0 else 0.01, 1 - masked)))


@given(TEXTS, st.lists(st.sampled_from(["Ann", "15.", "_"])), configs(), st.integers())
def test_a_corrupted_text_is_never_the_text(text: str, words: list[str], config: CorruptionConfig, seed: int) -> None:
    corrupted = corrupt(text, words, "_", config, Random(seed))
    assert corrupted != text
    assert corrupted == corrupt(text, words, "_", config, Random(seed))


@given(configs(), st.integers())
def test_every_changed_word_is_a_mask_or_a_given_word(config: CorruptionConfig, seed: int) -> None:
    corrupted = corrupt(TEXT, WORDS, "_", config, Random(seed))
    assert [part for part in corrupted if part.isspace()] == [part for part in TEXT if part.isspace()]
    changed = [new for old, new in zip(TEXT.split(), corrupted.split(), strict=True) if old != new]
    assert changed
    assert set(changed) <= {*WORDS, "_"}
    if config.replaced == 0:
        assert set(changed) == {"_"}


def test_about_the_asked_share_of_words_changes() -> None:
    text = " ".join(f"w{number}" for number in range(200))
    config = CorruptionConfig(masked=0.1, replaced=0.2)
    masked = replaced = 0
    for seed in range(50):
        corrupted = corrupt(text, ["other"], "_", config, Random(seed)).split()
        masked, replaced = masked + corrupted.count("_"), replaced + corrupted.count("other")
    assert masked / 10_000 == pytest.approx(0.1, abs=0.015)
    assert replaced / 10_000 == pytest.approx(0.2, abs=0.015)


@given(
    st.lists(TEXTS, max_size=5, unique=True), st.lists(TEXTS, max_size=5), st.lists(TEXTS, max_size=3), st.integers()
)
def test_classes_are_balanced_and_no_corruption_is_a_positive(
    positives: list[str], negatives: list[str], words: list[str], seed: int
) -> None:
    made = balancing_negatives(positives, negatives, words, "_", CorruptionConfig(), seed)
    assert len(made) == max(0, len(positives) - len(negatives))
    assert not set(made) & set(positives)
    assert made == balancing_negatives(positives, negatives, words, "_", CorruptionConfig(), seed)


def test_words_are_sorted_and_each_is_there_once() -> None:
    assert words_of(["b a", "a\nc", ""]) == ["a", "b", "c"]


def test_a_t5_tokenizer_masks_with_its_sentinel_and_others_with_an_underscore(tiny_llama: Path) -> None:
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, "<extra_id_0>": 3}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    assert mask_word(PreTrainedTokenizerFast(tokenizer_object=tokenizer)) == "<extra_id_0>"
    assert mask_word(AutoTokenizer.from_pretrained(tiny_llama)) == "_"


def test_shares_that_change_nothing_or_too_much_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"masked \(0\) and replaced \(0\) must add up to more than 0"):
        CorruptionConfig(masked=0, replaced=0)
    with pytest.raises(ValidationError, match=r"masked \(0.7\) and replaced \(0.6\) must add up to .* at most 1"):
        CorruptionConfig(masked=0.7, replaced=0.6)
