"""The discriminator: what it reads, that padding and batches do not matter, where its weights come from, its folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import T5ForConditionalGeneration

from models.configs import DiscriminatorConfig, LoraConfig, NewStudentConfig, StudentConfig
from models.discriminator import HEAD, SETTINGS, Discriminator, load_discriminator, make_discriminator
from models.errors import BadDiscriminator, TextTooLong
from models.lora import add_lora
from models.student import Student, pad
from models.student_loading import make_student

QUESTIONS = [
    "Ann has 3 apples and buys 12 more. How many?",
    "Ben has 9 marbles and loses 4. How many has he?",
    "2 + 2?",
]
RATIONALES = ["3 + 12 = 15. So the answer is 15.", "", "Two and two more are four, which is 4. So the answer is 4."]
SIZES = NewStudentConfig(hidden=16, layers=1, heads=2, intermediate=32, vocab_size=300)


def small_student(architecture: Any = "t5") -> Student:
    new = SIZES.model_copy(update={"architecture": architecture})
    return make_student(StudentConfig(model="new", new=new), [*QUESTIONS, *RATIONALES])


@pytest.fixture(scope="module")
def student() -> Student:
    return small_student()


@pytest.fixture(scope="module")
def discriminator(student: Student) -> Discriminator:
    return make_discriminator(DiscriminatorConfig(), student)


def one_by_one(discriminator: Discriminator, questions: list[str], rationales: list[str]) -> list[float]:
    """Scores without any padding, by the definition."""
    scores = []
    for ids in discriminator.pair_ids(questions, rationales):
        with torch.no_grad():
            states = discriminator.encoder(input_ids=torch.tensor([ids])).last_hidden_state[0]  # (S, H)
            pooled = torch.stack([states[:, unit].max() for unit in range(states.shape[1])])
            hidden = torch.relu(discriminator.first(pooled))
            scores.append(float(torch.sigmoid(discriminator.second(hidden))))
    return scores


# --- what it reads ----------------------------------------------------------------------------------------------------


def test_it_reads_question_end_rationale_end(discriminator: Discriminator) -> None:
    eos = discriminator.tokenizer.eos_token_id
    for ids, question, rationale in zip(
        discriminator.pair_ids(QUESTIONS, RATIONALES), QUESTIONS, RATIONALES, strict=True
    ):
        middle = ids.index(eos)
        assert discriminator.tokenizer.decode(ids[:middle]) == question
        assert discriminator.tokenizer.decode(ids[middle + 1 : -1]) == rationale
        assert ids[-1] == eos


def test_a_tokenizer_that_adds_ends_itself_adds_none_here() -> None:
    student = small_student()
    eos = student.tokenizer.eos_token
    student.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(  # what T5's own tokenizers do
        single=f"$A {eos}", special_tokens=[(eos, student.tokenizer.eos_token_id)]
    )
    assert student.tokenizer("a")["input_ids"][-1] == student.tokenizer.eos_token_id
    (ids,) = make_discriminator(DiscriminatorConfig(), student).pair_ids(["a"], ["b"])
    assert ids.count(student.tokenizer.eos_token_id) == 2


def test_questions_and_rationales_must_pair_up(discriminator: Discriminator) -> None:
    with pytest.raises(ValueError, match="zip"):
        discriminator.pair_ids(QUESTIONS, RATIONALES[:2])


# --- scores -----------------------------------------------------------------------------------------------------------


def test_scores_are_the_definitions(discriminator: Discriminator) -> None:
    scores = discriminator.score(QUESTIONS, RATIONALES)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, torch.tensor(one_by_one(discriminator, QUESTIONS, RATIONALES)))
    assert len(set(scores.tolist())) == 3


@given(order=st.lists(st.integers(0, 2), max_size=12), batch_tokens=st.integers(1, 400))
@settings(deadline=None, max_examples=20)
def test_neither_batches_nor_order_matter(discriminator: Discriminator, order: list[int], batch_tokens: int) -> None:
    expected = one_by_one(discriminator, QUESTIONS, RATIONALES)
    scores = discriminator.score([QUESTIONS[i] for i in order], [RATIONALES[i] for i in order], batch_tokens)
    torch.testing.assert_close(scores, torch.tensor([expected[i] for i in order], dtype=torch.float32))


def test_padding_gets_no_gradient_and_no_say(discriminator: Discriminator) -> None:
    ids, mask = pad(discriminator.pair_ids(QUESTIONS, RATIONALES), discriminator.pad_id)
    other = ids.masked_fill(~mask, 5)
    torch.testing.assert_close(discriminator(ids, mask), discriminator(other, mask))
    wider = torch.cat([ids, torch.zeros_like(ids)], dim=1), torch.cat([mask, torch.zeros_like(mask)], dim=1)
    torch.testing.assert_close(discriminator(ids, mask), discriminator(*wider))


def test_scoring_leaves_no_gradients_and_no_dropout_and_the_mode_as_it_was(discriminator: Discriminator) -> None:
    discriminator.train()
    try:
        scores = discriminator.score(QUESTIONS, RATIONALES)
        assert discriminator.training
        assert not scores.requires_grad
        assert torch.equal(scores, discriminator.score(QUESTIONS, RATIONALES))
    finally:
        discriminator.eval()


def test_pairs_that_are_too_long_are_counted_and_named(student: Student) -> None:
    short = make_discriminator(DiscriminatorConfig(max_tokens=8), student)
    lengths = [len(ids) for ids in short.pair_ids(QUESTIONS, RATIONALES)]
    pattern = rf"3 of 3 questions .* more than 8 tokens; the longest, of {max(lengths)}, begins '.* Raise discriminator"
    with pytest.raises(TextTooLong, match=pattern):
        short.score(QUESTIONS, RATIONALES)


# --- where its weights come from --------------------------------------------------------------------------------------


def test_the_students_encoder_is_copied_not_shared(student: Student) -> None:
    discriminator = make_discriminator(DiscriminatorConfig(), student)
    weights = student.model.state_dict()
    for name, weight in discriminator.encoder.state_dict().items():
        assert torch.equal(weight, weights[name])
        assert weight.data_ptr() != weights[name].data_ptr()
    assert all(weight.requires_grad for weight in discriminator.parameters())


def test_adapters_of_the_student_are_added_into_the_copy() -> None:
    student = small_student()
    plain = make_discriminator(DiscriminatorConfig(), student)
    add_lora(student.model, LoraConfig())
    for name, weight in student.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(0))
    adapted = make_discriminator(DiscriminatorConfig(), student)
    assert adapted.encoder.state_dict().keys() == plain.encoder.state_dict().keys()
    ids, mask = pad(student.input_ids(QUESTIONS), student.pad_id)
    with torch.no_grad():
        expected = student.encode(ids, mask).states[0]
        found = adapted.encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(found[mask], expected[mask])


def test_a_bfloat16_student_gives_a_float32_discriminator() -> None:
    student = small_student()
    student.model.to(torch.bfloat16)
    assert make_discriminator(DiscriminatorConfig(), student).encoder.dtype == torch.float32


def test_the_seed_decides_the_linear_layers_and_nothing_else(student: Student) -> None:
    state = torch.random.get_rng_state()
    made = [make_discriminator(DiscriminatorConfig(seed=seed), student) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(made[0].first.weight, made[1].first.weight)
    assert not torch.equal(made[0].first.weight, made[2].first.weight)


def test_a_new_encoder_and_a_width_of_its_own(student: Student) -> None:
    config = DiscriminatorConfig(encoder="new", new=SIZES.model_copy(update={"hidden": 24}), hidden=7)
    discriminator = make_discriminator(config, student)
    assert discriminator.encoder.config.d_model == 24
    assert discriminator.first.weight.shape == (7, 24)
    assert discriminator.score(QUESTIONS, RATIONALES).shape == (3,)


def test_dropout_is_the_encoders_own_or_the_one_asked_for_and_is_saved(student: Student, tmp_path: Path) -> None:
    student.save(tmp_path / "t5")
    for encoder in ("student", "new", str(tmp_path / "t5")):
        assert make_discriminator(DiscriminatorConfig(encoder=encoder), student).encoder.config.dropout_rate == 0.1
        discriminator = make_discriminator(DiscriminatorConfig(encoder=encoder, dropout=0.0), student)
        assert {module.p for module in discriminator.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}
        discriminator.save(tmp_path / "d")
        assert load_discriminator(tmp_path / "d").encoder.config.dropout_rate == 0.0
    assert student.model.config.dropout_rate == 0.1


def test_another_t5s_folder_brings_its_tokenizer(student: Student, tmp_path: Path) -> None:
    other = small_student()
    with torch.no_grad():
        other.model.shared.weight.mul_(2)
    other.save(tmp_path / "t5")
    discriminator = make_discriminator(DiscriminatorConfig(encoder=str(tmp_path / "t5")), student)
    assert torch.equal(discriminator.encoder.shared.weight, other.model.shared.weight)
    assert discriminator.tokenizer is not student.tokenizer


def test_a_decoder_only_student_is_refused_unless_the_encoder_is_new() -> None:
    llama = small_student("llama")
    pattern = "copies the student's encoder, and from a llama none can be taken. Set it to 'new', or to the folder"
    with pytest.raises(BadDiscriminator, match=pattern):
        make_discriminator(DiscriminatorConfig(), llama)
    discriminator = make_discriminator(DiscriminatorConfig(encoder="new", new=SIZES), llama)
    assert discriminator.score(QUESTIONS, RATIONALES).shape == (3,)


def test_a_folder_that_is_not_there_is_refused(
    student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BadDiscriminator, match="is no folder here, and no hub model that was reached"):
        make_discriminator(DiscriminatorConfig(encoder=str(tmp_path / "nowhere")), student)


# --- its folder -------------------------------------------------------------------------------------------------------


def test_a_saved_discriminator_scores_the_same(discriminator: Discriminator, tmp_path: Path) -> None:
    discriminator.save(tmp_path / "d")
    loaded = load_discriminator(tmp_path / "d")
    assert torch.equal(loaded.score(QUESTIONS, RATIONALES), discriminator.score(QUESTIONS, RATIONALES))
    assert loaded.max_tokens == discriminator.max_tokens
    assert not loaded.training
    suffixes = {path.suffix for path in (tmp_path / "d").rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json"}  # no pickle


def test_saving_again_replaces_what_is_there(student: Student, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_discriminator(DiscriminatorConfig(seed=seed), student).save(tmp_path / "d")
    expected = make_discriminator(DiscriminatorConfig(seed=1), student)
    assert torch.equal(load_discriminator(tmp_path / "d").first.weight, expected.first.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_failed_save_leaves_the_old_folder(
    discriminator: Discriminator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    discriminator.save(tmp_path / "d")

    def full_disk(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("models.discriminator.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        discriminator.save(tmp_path / "d")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    load_discriminator(tmp_path / "d")


@contextmanager
def refused_in_one_line(folder: Path) -> Iterator[None]:
    with pytest.raises(BadDiscriminator) as caught:
        yield
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_discriminator_is_refused(tmp_path: Path) -> None:
    with refused_in_one_line(tmp_path):
        load_discriminator(tmp_path)


@pytest.mark.parametrize("name", [HEAD, SETTINGS, "model.safetensors", "config.json"])
def test_a_damaged_folder_is_named(discriminator: Discriminator, tmp_path: Path, name: str) -> None:
    discriminator.save(tmp_path / "d")
    file = tmp_path / "d" / name
    file.write_bytes(file.read_bytes()[:20])
    with refused_in_one_line(tmp_path / "d"):
        load_discriminator(tmp_path / "d")


def test_a_folder_without_its_linear_layers_is_refused(discriminator: Discriminator, tmp_path: Path) -> None:
    discriminator.save(tmp_path / "d")
    (tmp_path / "d" / HEAD).unlink()
    with refused_in_one_line(tmp_path / "d"):
        load_discriminator(tmp_path / "d")


def test_the_papers_defaults() -> None:
    config = DiscriminatorConfig()
    assert (config.loss, config.pretrain_steps) == ("ratio", 500)


def test_the_encoder_of_a_saved_t5_needs_no_decoder(student: Student, tmp_path: Path) -> None:
    assert isinstance(student.model, T5ForConditionalGeneration)
    student.save(tmp_path / "t5")
    make_discriminator(DiscriminatorConfig(encoder=str(tmp_path / "t5")), student).save(tmp_path / "d")
    found = load_discriminator(tmp_path / "d")
    assert not any("decoder" in name for name, _ in found.named_parameters())
