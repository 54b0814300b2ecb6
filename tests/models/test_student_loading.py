"""Students from a configuration and from folders: what is loaded, what is refused and how that is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, BertConfig, BertForMaskedLM, T5EncoderModel

from models.configs import StudentConfig
from models.errors import BadStudent
from models.losses import IGNORED
from models.student import DecoderOnlyStudent, EncoderDecoderStudent, Student, pad
from models.student_loading import load_student, make_student
from tests.models.students import LIMITS, QUESTIONS, RATIONALES, STUDENTS, llama, names_in, new_student, t5, tokenizer


@torch.no_grad()
def losses(student: Student) -> torch.Tensor:
    ids, mask = pad(student.input_ids(QUESTIONS), student.pad_id)
    targets, _ = pad(student.target_ids(RATIONALES), IGNORED)
    return student.cross_entropy(student.encode(ids, mask), targets)


@pytest.mark.parametrize("name", STUDENTS)
def test_a_saved_student_comes_back_the_same(name: str, tmp_path: Path) -> None:
    student = STUDENTS[name]()
    student.save(tmp_path / "student")
    again = load_student(tmp_path / "student")
    assert type(again) is type(student)
    assert not again.training
    assert not again.model.training
    assert (again.max_input_tokens, again.max_target_tokens) == (128, 128)
    assert again.input_ids(QUESTIONS) == student.input_ids(QUESTIONS)
    assert torch.equal(losses(again), losses(student))


def test_the_folder_is_an_ordinary_model(tmp_path: Path) -> None:
    t5().save(tmp_path / "t5")
    llama().save(tmp_path / "llama")
    assert {"model.safetensors", "config.json", "tokenizer.json", "student.json"} <= names_in(tmp_path / "t5")
    assert not [name for name in names_in(tmp_path / "t5") if name.endswith((".bin", ".pt", ".pkl"))]
    assert AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "t5").config.model_type == "t5"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "llama").config.model_type == "llama"
    assert json.loads((tmp_path / "llama" / "student.json").read_text())["kind"] == "decoder-only"


def test_a_folder_of_other_origin_is_a_student_too(tmp_path: Path) -> None:
    student = t5()
    student.model.save_pretrained(tmp_path)
    student.tokenizer.save_pretrained(tmp_path)
    again = load_student(tmp_path)
    assert isinstance(again, EncoderDecoderStudent)
    assert (again.max_input_tokens, again.max_target_tokens) == (512, 256)
    assert torch.equal(losses(again), losses(student))


def test_a_config_decides_where_one_is_given(tmp_path: Path) -> None:
    t5().save(tmp_path / "student")
    config = StudentConfig(
        model=str(tmp_path / "student"), dtype="bfloat16", dropout=0.25, max_input_tokens=9, max_target_tokens=8
    )
    student = make_student(config)
    assert (student.max_input_tokens, student.max_target_tokens) == (9, 8)
    assert {weight.dtype for weight in student.parameters()} == {torch.bfloat16}
    rates = {module.p for module in student.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.25}


def test_a_runs_config_of_a_new_student_loads_its_checkpoints(tmp_path: Path) -> None:
    config = StudentConfig(model="new", **LIMITS)
    student = make_student(config, QUESTIONS)
    student.save(tmp_path / "checkpoint")
    assert torch.equal(losses(load_student(tmp_path / "checkpoint", config)), losses(student))


def test_dropout_of_a_llama_is_its_attentions() -> None:
    student = new_student("llama", dropout=0.5)
    assert student.model.config.attention_dropout == 0.5
    student.train()
    assert not torch.equal(losses(student), losses(student))
    student.eval()
    assert torch.equal(losses(student), losses(student))


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "fp16", "half"])
def test_fp16_is_refused_with_the_reason(dtype: Any) -> None:
    with pytest.raises(ValidationError, match=r"T5 overflows to NaN in float16; use 'bfloat16' or 'float32'"):
        StudentConfig(model="new", dtype=dtype)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model": "new", "modle": "x"}, "modle"),
        ({"model": "new", "dtype": "int8"}, "'float32' or 'bfloat16'"),
        ({"model": ""}, "at least 1 character"),
        ({"model": "google-t5/t5-small", "new": {}}, "`new` and `tokenizer` belong to model: new"),
        ({"model": "google-t5/t5-small", "tokenizer": "x"}, "'google-t5/t5-small' brings its own"),
        ({"model": "new", "revision": "main"}, "`revision` belongs to a hub model"),
        ({"model": "new", "lora": {}}, "`lora` needs a trained model"),
        ({"model": "new", "max_target_tokens": 0}, "max_target_tokens"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        StudentConfig.model_validate(settings)


def refusal(model: str | Path, config: StudentConfig | None = None) -> str:
    """The one line that loading fails with."""
    with pytest.raises(BadStudent) as caught:
        load_student(model, config)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_an_encoder_only_model_is_refused(tmp_path: Path) -> None:
    words = tokenizer()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    assert refusal(tmp_path).endswith(
        "(bert) writes no text, so it can be no student. Take an encoder-decoder (T5, Flan-T5, BART) or a decoder-only "
        "model (Llama, Qwen, SmolLM2)."
    )


def test_a_checkpoint_without_its_head_or_decoder_is_refused(tmp_path: Path) -> None:
    student = t5()
    T5EncoderModel(student.model.config).save_pretrained(tmp_path / "encoder")
    student.tokenizer.save_pretrained(tmp_path / "encoder")
    settings = json.loads((tmp_path / "encoder" / "config.json").read_text()) | {"is_encoder_decoder": True}
    (tmp_path / "encoder" / "config.json").write_text(json.dumps(settings))
    line = refusal(tmp_path / "encoder")
    assert "has no weights for decoder." in line
    assert "Take a model with its language-model head" in line


def test_pickles_are_refused(tmp_path: Path) -> None:
    t5().save(tmp_path / "student")
    (tmp_path / "student" / "model.safetensors").unlink()
    assert "as safetensors; there is none" in refusal(tmp_path / "student")
    torch.save(t5().model.state_dict(), tmp_path / "student" / "pytorch_model.bin")
    assert "there is only pytorch_model.bin, a pickle, which may run code when it is read" in refusal(
        tmp_path / "student"
    )


def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "'no/such-model' is no folder here, and no hub model that was reached" in refusal("no/such-model")
    assert "is no folder here, and no hub model that was reached" in refusal(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "must hold its weights as safetensors; there is none" in refusal(tmp_path / "empty")


def test_damage_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "student"
    t5().save(folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert f"Student {str(folder)!r} cannot be loaded" in refusal(folder)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "student.json").write_text('{"kind"')
    assert "student.json' is damaged" in refusal(folder)
    (folder / "student.json").unlink()
    (folder / "config.json").write_text("{}")
    assert "cannot be loaded" in refusal(folder)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "student"
    t5().save(folder)
    settings = json.loads((folder / "config.json").read_text()) | {"d_ff": 64}
    (folder / "config.json").write_text(json.dumps(settings))
    assert "cannot be loaded" in refusal(folder)


def test_a_checkpoint_of_the_other_kind_says_what_it_is(tmp_path: Path) -> None:
    t5().save(tmp_path / "student")
    student = load_student(tmp_path / "student")
    with pytest.raises(BadStudent, match="T5ForConditionalGeneration is not decoder-only"):
        DecoderOnlyStudent(student.model, student.tokenizer)


def test_a_failed_save_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = t5()
    student.save(tmp_path / "student")
    before = (tmp_path / "student" / "model.safetensors").read_bytes()

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(student.model, "save_pretrained", full_disk)
    with pytest.raises(OSError, match="No space left"):
        student.save(tmp_path / "student")
    assert (tmp_path / "student" / "model.safetensors").read_bytes() == before
    assert names_in(tmp_path) == {"student"}
