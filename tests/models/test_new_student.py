"""Students with random weights: their sizes, their tokenizers, and that they learn."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import T5Config, T5ForConditionalGeneration

from models.configs import NewStudentConfig, StudentConfig
from models.errors import BadStudent
from models.generation import generate
from models.lab_teacher import build_tokenizer
from models.losses import IGNORED
from models.new_student import set_dropout
from models.prefixes import PREDICT
from models.student import Student, pad
from models.student_loading import make_student
from tests.models.students import LIMITS, QUESTIONS, RATIONALES, SIZES, new_student, tokenizer

TEXTS = [*QUESTIONS, *RATIONALES]


def weights(student: Student) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in student.parameters()])


def test_the_default_is_a_t5_of_a_million_parameters() -> None:
    student = make_student(StudentConfig(model="new"), [f"{word} {word * 2}" for word in map(str, range(5000))])
    assert student.kind == "encoder-decoder"
    config = student.model.config
    assert (config.d_model, config.num_layers, config.num_decoder_layers, config.num_heads) == (128, 2, 2, 4)
    assert config.dropout_rate == 0.1
    assert len(student.tokenizer) <= 1024
    missing = (1024 - len(student.tokenizer)) * 128  # embeddings of a vocabulary of full size
    assert weights(student).numel() + missing == 1_115_904


def test_a_llama_has_room_for_input_and_target() -> None:
    student = new_student("llama")
    assert student.kind == "decoder-only"
    assert student.max_positions == 256
    assert not student.training


def test_embeddings_are_tied() -> None:
    for architecture in ("t5", "llama"):
        model = new_student(architecture).model
        assert model.get_input_embeddings().weight is model.lm_head.weight


def test_the_seed_decides_the_weights_and_the_callers_random_state_is_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = new_student("t5")
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(8)
    assert torch.equal(weights(new_student("t5")), weights(first))
    other = StudentConfig(model="new", new=SIZES.model_copy(update={"seed": 1}), **LIMITS)
    assert not torch.equal(weights(make_student(other, TEXTS)), weights(first))


def test_a_given_tokenizer_is_used(tmp_path: Path) -> None:
    words = build_tokenizer(["apples and marbles"] * 3, 280, 256)
    words.save_pretrained(tmp_path)
    student = make_student(StudentConfig(model="new", new=SIZES, tokenizer=str(tmp_path)))
    assert student.tokenizer.get_vocab() == words.get_vocab()
    assert student.model.config.vocab_size == len(words)
    assert student.start_id == words.pad_token_id  # T5's convention


def test_the_fused_activation_is_the_gated_gelu_of_t5() -> None:
    fused = new_student("t5").model
    config = T5Config(**fused.config.to_dict() | {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new"})
    plain = T5ForConditionalGeneration(config).eval()
    assert plain.config.dense_act_fn == "gelu_new"
    plain.load_state_dict(fused.state_dict())
    ids = torch.tensor([[5, 6, 7, 2]])
    torch.testing.assert_close(fused(input_ids=ids, labels=ids).logits, plain(input_ids=ids, labels=ids).logits)


@pytest.mark.parametrize("architecture", ["t5", "llama"])
def test_it_learns_its_questions_by_heart(architecture: Any) -> None:
    questions = [f"{PREDICT}Ann has {n} apples and buys {m} more. How many?" for n in range(2, 6) for m in range(1, 5)]
    labels = [str(n + m) for n in range(2, 6) for m in range(1, 5)]
    new = NewStudentConfig(architecture=architecture, hidden=64, heads=2, intermediate=128, vocab_size=300)
    student = make_student(StudentConfig(model="new", new=new, dropout=0, **LIMITS), questions)
    ids, mask = pad(student.input_ids(questions), student.pad_id)
    targets, _ = pad(student.target_ids(labels), IGNORED)
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3, weight_decay=0)
    student.train()
    for _ in range(150):
        loss = student.cross_entropy(student.encode(ids, mask), targets).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.1
    assert [written.text for written in generate(student, questions, max_new_tokens=6)] == labels


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_student_needs_a_tokenizer_or_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadStudent, match="give a folder as `tokenizer`, or texts to train one on"):
        make_student(StudentConfig(model="new"))
    with pytest.raises(BadStudent, match=r"is no tokenizer folder\. Give a folder with a tokenizer\.json"):
        make_student(StudentConfig(model="new", tokenizer=str(tmp_path)))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BadStudent, match=r"'no/such' is no folder, and no hub model that was reached"):
        make_student(StudentConfig(model="new", tokenizer="no/such"))


def test_a_tokenizer_without_padding_is_refused(tmp_path: Path) -> None:
    words: Any = tokenizer()
    words.pad_token = None
    words.save_pretrained(tmp_path)
    with pytest.raises(BadStudent, match="has no pad_token; a student needs one"):
        make_student(StudentConfig(model="new", tokenizer=str(tmp_path)))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadStudent, match=r"hidden \(32\) must be a multiple of heads \(3\)"):
        make_student(StudentConfig(model="new", new=SIZES.model_copy(update={"heads": 3}), **LIMITS), TEXTS)
    with pytest.raises(ValidationError, match="'t5' or 'llama'"):
        NewStudentConfig(architecture="bert")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="widht"):
        NewStudentConfig(widht=3)  # type: ignore[call-arg]


def test_dropout_of_a_model_without_any_is_refused() -> None:
    class Bare:
        model_type = "bare"

    with pytest.raises(BadStudent, match="A bare has no dropout to set; leave `dropout` out"):
        set_dropout(Bare(), 0.1)
