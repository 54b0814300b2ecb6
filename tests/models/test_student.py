"""The student's interface against plain transformers, one target at a time, in float64."""

from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    FalconH1Config,
    FalconH1ForCausalLM,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MptConfig,
    MptForCausalLM,
    T5ForConditionalGeneration,
)

from models.errors import BadStudent
from models.losses import IGNORED
from models.student import DecoderOnlyStudent, EncoderDecoderStudent, Student, pad
from tests.models.students import ALL_STUDENTS, LIMITS, QUESTIONS, RATIONALES, STUDENTS, WINDOWED, llama, t5, tokenizer

OWNER = [0, 1, 2, 0, 0, 2]
TARGETS = [*RATIONALES, "7", "15", "She buys 12 more, so there are 15 apples. So the answer is 15."]
# A T5 computes the variance in its layer norms in float32, whatever the rest is in.
CLOSE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-7}


@pytest.fixture(params=ALL_STUDENTS)
def student(request: pytest.FixtureRequest) -> Student:
    return ALL_STUDENTS[request.param]().double()


def batch(student: Student, more_padding: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(ids, mask) of QUESTIONS, and TARGETS."""
    ids, mask = pad(student.input_ids(QUESTIONS), student.pad_id)
    targets, _ = pad(student.target_ids(TARGETS), IGNORED)
    if more_padding:
        ids = torch.nn.functional.pad(ids, (0, more_padding), value=student.pad_id)
        mask = torch.nn.functional.pad(mask, (0, more_padding))
        targets = torch.nn.functional.pad(targets, (0, more_padding), value=IGNORED)
    return ids, mask, targets


def cross_entropies(student: Student, more_padding: int = 0) -> Tensor:
    ids, mask, targets = batch(student, more_padding)
    return student.cross_entropy(student.encode(ids, mask).rows(torch.tensor(OWNER)), targets)


def one_by_one(student: Student) -> Tensor:
    """Each question and target alone, in a plain forward pass of transformers, without any padding."""
    questions = [torch.tensor([ids]) for ids in student.input_ids(QUESTIONS)]
    losses = []
    for owner, ids in zip(OWNER, student.target_ids(TARGETS), strict=True):
        question, target = questions[owner], torch.tensor([ids])
        if student.kind == "encoder-decoder":
            logits = student.model(input_ids=question, labels=target).logits[0]
        else:  # transformers' own loss of these would be in float32
            logits = student.model(input_ids=torch.cat([question, target], dim=1)).logits[0, question.shape[1] - 1 : -1]
        losses.append(torch.nn.functional.cross_entropy(logits, target[0]))
    return torch.stack(losses)


def gradients(student: Student, losses: Tensor) -> dict[str, Tensor]:
    student.zero_grad()
    weights = torch.arange(1, len(losses) + 1, dtype=losses.dtype)
    torch.autograd.backward((losses * weights).sum())
    return {name: weight.grad.clone() for name, weight in student.named_parameters() if weight.grad is not None}


def test_cross_entropy_is_that_of_every_target_alone(student: Student) -> None:
    losses = cross_entropies(student)
    assert losses.dtype == torch.float64
    torch.testing.assert_close(losses, one_by_one(student), **CLOSE)


@pytest.mark.parametrize("name", WINDOWED)
def test_the_texts_are_longer_than_the_windows(name: str) -> None:
    """Or the tests with them would prove nothing."""
    student = WINDOWED[name]().double()
    losses = cross_entropies(student)
    wide = type(student.model.config)(**student.model.config.to_dict() | {"sliding_window": 200})
    unbounded: Any = type(student.model)(wide).double().eval()
    unbounded.load_state_dict(student.model.state_dict())
    others = cross_entropies(DecoderOnlyStudent(unbounded, student.tokenizer, **LIMITS))
    assert (losses - others).abs().min() > 1e-3


def test_models_that_count_places_see_no_padding() -> None:
    """GPT-Neo's local attention and MPT's ALiBi do so by themselves, without a word in their caches."""
    words = tokenizer()
    torch.manual_seed(0)
    local = GPTNeoConfig(
        vocab_size=len(words), hidden_size=32, num_layers=2, num_heads=2, attention_types=[[["global", "local"], 1]],
        window_size=8, max_position_embeddings=256, initializer_range=0.3, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    alibi = MptConfig(vocab_size=len(words), d_model=32, n_heads=2, n_layers=2, max_seq_len=256, initializer_range=0.3)
    for model in (GPTNeoForCausalLM(local), MptForCausalLM(alibi)):
        student = DecoderOnlyStudent(model.double().eval(), words, **LIMITS)
        torch.testing.assert_close(cross_entropies(student), one_by_one(student), rtol=1e-6, atol=1e-6)


def test_its_gradients_are_too(student: Student) -> None:
    ours, plain = gradients(student, cross_entropies(student)), gradients(student, one_by_one(student))
    assert ours.keys() == plain.keys()
    for name in plain:
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-5, atol=1e-6)


def test_padding_changes_nothing(student: Student) -> None:
    torch.testing.assert_close(cross_entropies(student, more_padding=9), cross_entropies(student), **CLOSE)


def test_all_targets_share_one_pass_over_their_questions(student: Student) -> None:
    passes: list[tuple[int, ...]] = []

    def count(_: Any, given: tuple[Any, ...], arguments: dict[str, Any]) -> None:
        passes.append(tuple((given[0] if given else arguments["input_ids"]).shape))

    inner = student.model.get_encoder() if student.kind == "encoder-decoder" else student.model.base_model
    inner.register_forward_pre_hook(count, with_kwargs=True)
    ids, mask, targets = batch(student)
    encoded = student.encode(ids, mask)
    for _ in range(2):
        student.cross_entropy(encoded.rows(torch.tensor(OWNER)), targets)
    over_questions = [shape for shape in passes if shape == ids.shape]
    assert len(over_questions) == 1
    # A decoder-only model goes on from there: its other passes are over targets only.
    assert all(shape in (ids.shape, targets.shape) for shape in passes)


def test_detached_states_carry_no_gradient(student: Student) -> None:
    ids, mask, targets = batch(student)
    encoded = student.encode(ids, mask)
    assert all(state.requires_grad for state in encoded.states)
    assert not any(state.requires_grad for state in encoded.detach().states)
    rows = torch.tensor(OWNER)
    torch.testing.assert_close(
        student.cross_entropy(encoded.detach().rows(rows), targets), student.cross_entropy(encoded.rows(rows), targets)
    )
    if student.kind == "encoder-decoder":
        losses = student.cross_entropy(encoded.detach().rows(rows), targets)
        assert not any(name.startswith("model.encoder.block") for name in gradients(student, losses))


def test_an_input_of_one_token(student: Student) -> None:
    ids = torch.tensor([[student.eos_id], [student.eos_id]])
    target = torch.tensor([[5, student.eos_id], [5, student.eos_id]])
    losses = student.cross_entropy(student.encode(ids, torch.ones_like(ids)), target)
    assert losses.isfinite().all()
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize("name", ["t5", "llama"])
def test_bfloat16_is_near_and_its_losses_are_float32(name: str) -> None:
    exact = cross_entropies(STUDENTS[name]())
    rough = cross_entropies(STUDENTS[name]().to(torch.bfloat16))
    assert exact.dtype == rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("name", ["t5", "llama"])
def test_autocast_to_bfloat16_is_near(name: str) -> None:
    student = STUDENTS[name]()
    exact = cross_entropies(student)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = cross_entropies(student)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.03, atol=0.03)


# --- token ids --------------------------------------------------------------------------------------------------------


def test_a_t5_reads_and_writes_the_text_and_the_end_token() -> None:
    student, words = t5(), tokenizer()
    plain = words("2 + 2?", add_special_tokens=False)["input_ids"]
    assert student.input_ids(["2 + 2?", ""]) == [[*plain, words.eos_token_id], [words.eos_token_id]]
    assert student.target_ids(["2 + 2?"]) == [[*plain, words.eos_token_id]]


def test_a_tokenizer_that_ends_its_sequences_itself_is_left_to_it() -> None:
    words: Any = tokenizer()
    ends = words.eos_token_id
    words.backend_tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", ends)])
    student = EncoderDecoderStudent(t5().model, words)
    plain = words("2 + 2?", add_special_tokens=False)["input_ids"]
    assert student.input_ids(["2 + 2?"]) == student.target_ids(["2 + 2?"]) == [[*plain, ends]]


def test_a_llama_reads_the_text_and_a_line_break() -> None:
    student, words = llama(), tokenizer()
    assert student.input_ids(["2 + 2?"]) == [words("2 + 2?\n")["input_ids"]]
    assert student.input_ids(["2 + 2?"])[0][0] == words.bos_token_id
    assert student.target_ids(["4"]) == [[*words("4", add_special_tokens=False)["input_ids"], words.eos_token_id]]


def test_nothing_is_cut_and_no_texts_are_no_ids(student: Student) -> None:
    assert len(student.input_ids(["word " * 400])[0]) > student.max_input_tokens
    assert len(student.target_ids(["word " * 400])[0]) > student.max_target_tokens
    assert student.input_ids([]) == student.target_ids([]) == []


def test_rows_are_padded_on_the_right() -> None:
    ids, mask = pad([[5, 6, 7], [], [8]], 0)
    assert ids.tolist() == [[5, 6, 7], [0, 0, 0], [8, 0, 0]]
    assert mask.tolist() == [[True, True, True], [False, False, False], [True, False, False]]
    ids, mask = pad([], 0)
    assert ids.shape == mask.shape == (0, 0)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_model_of_the_other_kind_is_refused() -> None:
    with pytest.raises(BadStudent, match="T5ForConditionalGeneration is not decoder-only; load_student picks"):
        DecoderOnlyStudent(t5().model, tokenizer())
    with pytest.raises(BadStudent, match="LlamaForCausalLM is not encoder-decoder; load_student picks"):
        EncoderDecoderStudent(llama().model, tokenizer())


def test_a_model_that_keeps_no_keys_and_values_is_refused() -> None:
    model = MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1))
    with pytest.raises(BadStudent, match="MambaForCausalLM does not remember its input as keys and values only"):
        DecoderOnlyStudent(model, tokenizer())


def test_a_model_that_keeps_more_than_keys_and_values_is_refused() -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    mamba = {"mamba_d_ssm": 16, "mamba_n_heads": 2, "mamba_d_head": 8, "mamba_d_state": 8}
    model = FalconH1ForCausalLM(FalconH1Config(vocab_size=300, intermediate_size=16, **sizes, **mamba))
    with pytest.raises(BadStudent, match="FalconH1ForCausalLM does not remember its input as keys and values only"):
        DecoderOnlyStudent(model, tokenizer())


def test_a_tokenizer_without_end_is_refused() -> None:
    words: Any = tokenizer()
    words.eos_token = None
    with pytest.raises(BadStudent, match="has no end token, so no text would end"):
        EncoderDecoderStudent(t5().model, words)


def test_a_model_without_start_token_is_refused() -> None:
    model: T5ForConditionalGeneration = t5().model
    model.config.decoder_start_token_id = None
    with pytest.raises(BadStudent, match="has no decoder_start_token_id"):
        EncoderDecoderStudent(model, tokenizer())


def test_limits_beyond_the_models_are_refused() -> None:
    student = llama()
    with pytest.raises(BadStudent, match=r"takes 256 tokens at once, .* 200 and max_target_tokens 57 allow 257"):
        DecoderOnlyStudent(student.model, tokenizer(), 200, 57)
    DecoderOnlyStudent(student.model, tokenizer(), 200, 56)
    EncoderDecoderStudent(t5().model, tokenizer(), 100_000, 100_000)  # a T5's positions are relative
