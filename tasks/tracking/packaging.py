"""Packages a student to run elsewhere: weights, code, dataset definition and requirements in one MLflow model.

The package stands alone: a process with the recorded requirements, but without this repository, can load it.

    student/        the student, adapters merged into its weights
    discriminator/  if the method trained one
    definition/     a user's YAML definition and the Python files that it names
    code/           the files of this repository that answering needs
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import yaml
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from models.folders import ADAPTER_FILE
from storage.datasets.reasoning_gym import PREFIX as REASONING_GYM
from storage.datasets.registry import get_dataset
from storage.errors import UsageError
from tasks.serving.settings import AS_REGISTERED, DEFINITION, DISCRIMINATOR, STUDENT, Question, ServedConfig
from tasks.tracking.client import EXTERNAL, LoggedRound, Tracking
from tasks.tracking.code_files import needed_files, needed_packages, pinned

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("models", "storage", "tasks")
SERVED = ROOT / "tasks" / "serving" / "served_model.py"


@dataclass(frozen=True)
class ToServe:
    """What a package is made of.

    Attributes:
        student: its folder.
        discriminator: its folder; None if the method has none.
        config: what else the served student has to know; its `dataset` holds a YAML definition's path.
        examples: one or a few questions for MLflow's input example.
    """

    student: Path
    discriminator: Path | None
    config: ServedConfig
    examples: Sequence[Question]


def signature() -> ModelSignature:
    """The input and output columns, and what may be asked for beside them."""
    text, number = DataType.string, DataType.double
    return ModelSignature(
        inputs=Schema([ColSpec(text, "question"), ColSpec(Array(text), "choices", required=False)]),
        outputs=Schema(
            [
                ColSpec(text, "answer", required=False),
                ColSpec(text, "rationale", required=False),
                ColSpec(number, "quality", required=False),
                ColSpec(number, "confidence", required=False),
                ColSpec(DataType.boolean, "abstained"),
            ]
        ),
        params=ParamSchema(
            [ParamSpec("samples", DataType.long, AS_REGISTERED), ParamSpec("guesses", DataType.boolean, False)]
        ),
    )


def package(tracking: Tracking, logged: LoggedRound, parts: ToServe) -> None:
    """Packages a round's student into the round's logged model; one that is packaged already is left alone.

    Raises:
        UsageError: a folder is missing.
        BadFile: the dataset's definition cannot be read.
        TrackingFailed: MLflow refuses something.
    """
    with tracking.backend.lock("packaging"), tracking.backend.current():
        model = tracking.client.get_logged_model(logged.model_id)
        if EXTERNAL not in model.tags:
            return
        for folder in filter(None, (parts.student, parts.discriminator)):
            if not folder.is_dir():
                raise UsageError(f"Nothing to package: {folder} is not there. Was the round's checkpoint removed?")
        with _workplace(tracking.backend.folder) as place:
            about = Model(
                artifact_path=model.artifact_location,
                run_id=logged.run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
            )
            save(place / "model", parts, place, about)
            tracking.client.log_model_artifacts(logged.model_id, str(place / "model"))
        # Last, because all this is done again as long as the model is marked as external.
        tracking.client.delete_logged_model_tag(logged.model_id, EXTERNAL)


def save(folder: Path, parts: ToServe, place: Path, about: Model | None = None) -> None:
    """Writes the package as `folder`, an MLflow model that `mlflow.pyfunc.load_model` takes.

    Args:
        folder: to be made.
        parts: what goes in.
        place: an existing folder for intermediate files.
        about: MLflow's description of the model, filled in.
    """
    # Each under its own name, because MLflow merges folders of the same name.
    artifacts = {STUDENT: str(_whole_student(parts.student, place / STUDENT))}
    if parts.discriminator:
        artifacts[DISCRIMINATOR] = str(_linked(parts.discriminator, place / DISCRIMINATOR))
    config, requirements = parts.config, code_requirements()
    if config.dataset.lower().endswith((".yaml", ".yml")):
        definition, more = _definition(Path(config.dataset), place)
        artifacts[DEFINITION] = str(definition)
        requirements = sorted({*requirements, *more})
        config = config.model_copy(update={"dataset": Path(config.dataset).name})
    elif config.dataset.startswith(REASONING_GYM):
        requirements = sorted({*requirements, pinned("reasoning_gym")})
    mlflow.pyfunc.save_model(
        path=str(folder),
        mlflow_model=about,
        python_model=str(SERVED),
        artifacts=artifacts,
        code_paths=[str(path) for path in _code(place)],
        model_config=config.model_dump(mode="json"),
        pip_requirements=requirements,
        signature=signature(),
        input_example=[
            {"question": one.question} | ({"choices": list(one.choices)} if one.choices else {})
            for one in parts.examples
        ],
    )


def code_requirements() -> list[str]:
    """The packages that the served code imports, pinned to the installed versions."""
    return needed_packages(_files(), ROOT)


def _files() -> list[Path]:
    return needed_files([SERVED], ROOT, PACKAGES)


def _code(place: Path) -> list[Path]:
    """Copies of the needed files, as folders whose parent is to be on the import path."""
    for file in _files():
        copy = place / "code" / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return [place / "code" / name for name in PACKAGES]


def _whole_student(folder: Path, copy: Path) -> Path:
    """A copy of a student's folder, with any adapters merged into the weights."""
    if not (folder / ADAPTER_FILE).is_file():
        return _linked(folder, copy)
    from models.student_loading import load_student  # needs torch, which nothing else here does

    load_student(folder).save(copy, merge=True)
    return copy


def _linked(folder: Path, copy: Path) -> Path:
    """A copy of a folder, which takes no space if the file system has hard links."""
    try:
        shutil.copytree(folder, copy, copy_function=os.link)
    except OSError:  # another disk, or a file system without hard links
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
    return copy


def _definition(file: Path, place: Path) -> tuple[Path, list[str]]:
    """A folder with a copy of a YAML definition and the Python files it needs, and the packages these need."""
    get_dataset(str(file))  # raises if it is wrong
    settings: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    root = file.resolve().parent
    named = [settings[key].partition(":")[0] for key in ("parser", "normaliser") if settings.get(key)]
    entries = [
        path
        for name in named
        for path in (root / f"{name.replace('.', '/')}.py", root / name.replace(".", "/") / "__init__.py")
        if path.is_file()
    ]
    files = needed_files(entries, root)
    folder = place / DEFINITION
    folder.mkdir()
    for path in (file.resolve(), *files):
        copy = folder / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return folder, needed_packages(files, root, everywhere=True)


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A temporary folder. First removes those of dead processes; under the lock, nobody else has one."""
    for leftover in folder.glob("packaging-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="packaging-", dir=folder) as place:
        yield Path(place)


def model_name(dataset: str) -> str:
    """The name under which students of a dataset are registered, unless the configuration gives one."""
    return "qcrd-" + re.sub(r"[^A-Za-z0-9_-]+", "-", dataset).strip("-")
