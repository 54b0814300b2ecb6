"""A model folder is data: nothing in it is run, whoever loads it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.configs import DiscriminatorConfig, NewStudentConfig
from models.discriminator import load_discriminator, make_discriminator
from models.errors import BadModel, ModelError
from models.new_student import new_tokenizer
from models.server import check_model
from models.student_loading import load_student
from tests.models.students import t5

MODULE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import {base}
class Planted({base}):
    model_type = "planted"
"""
Load = Callable[[Path], object]


def as_student(folder: Path) -> object:
    return load_student(folder)


def as_encoder(folder: Path) -> object:
    return make_discriminator(DiscriminatorConfig(encoder=str(folder)), t5())


def as_discriminator(folder: Path) -> object:
    return load_discriminator(folder)


def as_tokenizer(folder: Path) -> object:
    return new_tokenizer(NewStudentConfig(), str(folder), ["text"], 32)


def t5_folder(folder: Path) -> Path:
    """What all of these load: a T5 with its tokenizer, and a discriminator's head beside it."""
    student = t5()
    make_discriminator(DiscriminatorConfig(encoder="student"), student).save(folder)
    for file in ("discriminator.json", "head.safetensors"):
        (folder / file).rename(folder.parent / file)
    student.save(folder)
    for file in ("discriminator.json", "head.safetensors"):
        (folder.parent / file).rename(folder / file)
    return folder


@pytest.mark.parametrize("load", [as_student, as_encoder, as_discriminator, as_tokenizer])
@pytest.mark.parametrize("known", [True, False], ids=["known-kind", "unknown-kind"])
def test_a_folder_that_asks_for_code_of_its_own_does_not_get_it_run(load: Load, known: bool, tmp_path: Path) -> None:
    folder, marker = t5_folder(tmp_path / "model"), tmp_path / "was-run"
    for name, base in {
        "configuration_planted": "T5Config",
        "modeling_planted": "T5ForConditionalGeneration",
        "tokenization_planted": "PreTrainedTokenizerFast",
    }.items():
        (folder / f"{name}.py").write_text(MODULE.format(marker=str(marker), base=base), encoding="utf-8")
    edit(
        folder / "config.json",
        auto_map={
            "AutoConfig": "configuration_planted.Planted",
            "AutoModel": "modeling_planted.Planted",
            "AutoModelForSeq2SeqLM": "modeling_planted.Planted",
        },
        **({} if known else {"model_type": "planted", "architectures": ["Planted"]}),
    )
    edit(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["tokenization_planted.Planted", "tokenization_planted.Planted"]},
        tokenizer_class="Planted",
    )
    refusal = None
    try:
        load(folder)
    except ModelError as error:
        refusal = str(error)
    assert not marker.exists()
    assert "\n" not in (refusal or "")
    assert refusal or known or load is as_tokenizer, "a kind that only its own code knows"


@pytest.mark.parametrize("load", [as_student, as_encoder, as_discriminator])
def test_weights_that_are_only_a_pickle_are_not_read(load: Load, tmp_path: Path) -> None:
    folder, marker = t5_folder(tmp_path / "model"), tmp_path / "was-run"
    (folder / "model.safetensors").unlink()
    torch.save({"shared.weight": Touches(str(marker))}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError) as error:
        load(folder)
    assert "safetensors" in str(error.value)
    assert "\n" not in str(error.value)
    assert not marker.exists()


def test_a_teacher_that_is_only_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(BadModel) as error:
        check_model(str(tmp_path))
    assert str(error.value) == (
        f"{tmp_path} has no weights: no *.safetensors file beside its config.json; pytorch_model.bin is a pickle, "
        "which may run code when it is read"
    )


class Touches:
    """Makes a folder when a pickle of it is read."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.marker,)


def test_the_planted_pickle_would_have_run(tmp_path: Path) -> None:
    torch.save(Touches(str(tmp_path / "was-run")), tmp_path / "file")
    torch.load(tmp_path / "file", weights_only=False)
    assert (tmp_path / "was-run").exists()


def edit(file: Path, **changes: object) -> None:
    content = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps(content), encoding="utf-8")
