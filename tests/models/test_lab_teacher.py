"""The lab teacher's tokenizer, its training and its saving, with a budget of a few steps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from models.configs import LabTeacherConfig
from models.errors import BadModel
from models.lab_teacher import build_tokenizer, save_model_folder, train_lab_teacher

TINY = LabTeacherConfig(hidden=32, heads=1, layers=1, intermediate=32, steps=4, batch_size=4, warmup_steps=1)
TEXTS = [
    (f"Ann has {n} apples. She finds {m} more. How many?\n", f"She finds {m} more, so {n} + {m} = {n + m}.")
    for n in range(3, 9)
    for m in range(2, 5)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_lab_teacher(TEXTS, tmp_path_factory.mktemp("lab") / "teacher", TINY)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def test_the_folder_is_an_ordinary_model(folder: Path, tokenizer: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.model_type == "llama"
    assert model.config.head_dim == 32
    assert len(tokenizer) == model.config.vocab_size
    generation = GenerationConfig.from_pretrained(folder)
    assert generation.eos_token_id == tokenizer.eos_token_id == model.config.eos_token_id
    assert generation.bos_token_id == tokenizer.bos_token_id == model.config.bos_token_id
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    ids = tokenizer("Ann has 3 apples.\n", return_tensors="pt")["input_ids"]
    assert model(input_ids=ids).logits.shape == (1, ids.shape[1], len(tokenizer))


@given(text=st.text(max_size=80))
def test_any_text_round_trips(tokenizer: Any, text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()  # a lone surrogate is no text
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", [" two  spaces ", "a ,b . c ! it 's", "line\nbreak\n", "\ttab", "100 + 27 = 127."])
def test_spaces_round_trip_exactly(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_every_digit_is_a_token_of_its_own(tokenizer: Any) -> None:
    for number in ("7", "42", "1905"):
        tokens = tokenizer.tokenize(f"has {number} apples")
        assert "".join(token for token in tokens if token.isdigit()) == number
        assert [token for token in tokens if any(character.isdigit() for character in token)] == list(number)


def test_a_prompt_begins_with_bos_and_does_not_end(tokenizer: Any) -> None:
    ids = tokenizer("How many?\n")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in ids
    completion = tokenizer("She finds 2 more.", add_special_tokens=False)["input_ids"]
    assert tokenizer("How many?\nShe finds 2 more.")["input_ids"] == ids + completion


def test_the_same_seed_gives_the_same_weights(folder: Path, tmp_path: Path) -> None:
    again = train_lab_teacher(TEXTS, tmp_path / "again", TINY)
    other = train_lab_teacher(TEXTS, tmp_path / "other", TINY.model_copy(update={"seed": 1}))
    weights = (folder / "model.safetensors").read_bytes()
    assert (again / "model.safetensors").read_bytes() == weights
    assert (other / "model.safetensors").read_bytes() != weights


def test_two_threads_train_the_same_teacher(folder: Path, tmp_path: Path) -> None:
    other = train_lab_teacher(TEXTS, tmp_path / "teacher", TINY, threads=2)
    assert (other / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_training_leaves_the_callers_random_state_and_threads_alone(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train_lab_teacher(TEXTS, tmp_path / "teacher", TINY)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_training_lowers_the_loss_and_reports(tmp_path: Path) -> None:
    calls: list[tuple[int, int, float, float]] = []
    config = TINY.model_copy(update={"steps": 40, "learning_rate": 1e-2})
    train_lab_teacher(TEXTS, tmp_path / "teacher", config, lambda *call: calls.append(call), progress_every=20)
    assert [step for step, *_ in calls] == [1, 20, 40]
    assert {steps for _, steps, *_ in calls} == {40}
    assert calls[-1][2] < 0.5 * calls[0][2]
    assert all(tokens_per_s > 0 for *_, tokens_per_s in calls)


def test_bfloat16_that_is_emulated_is_said_once_and_honoured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # whatever this machine has
    half = TINY.model_copy(update={"dtype": "bfloat16"})
    weights = [
        (train_lab_teacher(TEXTS, tmp_path / str(place), config) / "model.safetensors").read_bytes()
        for place, config in enumerate((TINY, half))
    ]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(
        "The lab teacher's dtype is bfloat16, which this processor (AVX2) only emulates"
    )
    assert weights[0] != weights[1]


@pytest.mark.parametrize("dtype", ["float16", "fp16", "half"])
def test_fp16_is_refused_with_the_reason(dtype: str) -> None:
    with pytest.raises(ValidationError, match=r"float16 overflows.*use 'bfloat16' or 'float32'"):
        LabTeacherConfig(dtype=dtype)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="stepz"):
        LabTeacherConfig(stepz=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="unknown dtype 'int8'"):
        LabTeacherConfig(dtype="int8")


def test_texts_that_cannot_be_trained_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="at least one worked problem"):
        train_lab_teacher([], tmp_path / "teacher", TINY)
    with pytest.raises(BadModel, match="max_tokens is 32"):
        train_lab_teacher([("word " * 50, "x")], tmp_path / "teacher", TINY.model_copy(update={"max_tokens": 32}))
    with pytest.raises(BadModel, match="must be a multiple of heads"):
        train_lab_teacher(TEXTS, tmp_path / "teacher", TINY.model_copy(update={"heads": 3}))
    assert list(tmp_path.iterdir()) == []


class _FailsHalfWay:
    """A model whose saving breaks after a file was written, as a full disk does it."""

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")


def test_an_interrupted_save_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        save_model_folder(_FailsHalfWay(), build_tokenizer(["a"], 300, 32), tmp_path / "teacher")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_keeps_what_was_there(folder: Path, tmp_path: Path) -> None:
    teacher = train_lab_teacher(TEXTS, tmp_path / "teacher", TINY)
    with pytest.raises(OSError, match="No space left"):
        save_model_folder(_FailsHalfWay(), build_tokenizer(["a"], 300, 32), teacher)
    assert (teacher / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_folder_that_is_there_is_replaced_whole(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    (teacher / "old.txt").write_text("old")
    train_lab_teacher(TEXTS, teacher, TINY)
    assert not (teacher / "old.txt").exists()
    assert (teacher / "config.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]
