"""A small store with questions, a teacher's samples and votes, and trainings on it with a very small student."""

import shutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from models.methods import MethodConfig
from storage.datasets.definition import Example
from storage.datasets.registry import get_dataset
from storage.ids import example_id, rationale_hash
from storage.schemas import RATIONALES
from storage.store import Store, now
from storage.votes import VoteRule, vote
from tasks.questions.sets import DatasetConfig
from tasks.questions.stored import store_examples
from tasks.training.folder import Training
from tasks.training.outcomes import Prepared
from tasks.training.prepare import prepare_training
from tasks.training.spec import Parts, TrainingConfig, TrainingSpec
from tests.lasting import lasting_folder

LAB = get_dataset("lab")
PATH = DatasetConfig(name="lab")


@dataclass
class World:
    """The store, and what is put into it."""

    root: Path
    rule: VoteRule = field(default_factory=lambda: VoteRule(dataset="lab"))
    samples: int = 0

    @property
    def store(self) -> Store:
        return Store(self.root / "store")

    def ask(self, question: str, label: str | None, split: str = "train") -> str:
        """Stores a question; returns its id."""
        store_examples(self.store, LAB, split, [Example(question, (), label)])
        return example_id("lab", split, question, ())

    def sample(
        self, example: str, *texts: tuple[str, str | None], split: str = "train", model: str = "teacher"
    ) -> list[str]:
        """Stores samples of a teacher as (rationale, answer); returns their ids, in an order of their own."""
        rows = []
        for text, answer in texts:
            self.samples += 1
            rows.append(
                {"sample_id": f"s{self.samples:03d}", "example_id": example, "dataset": "lab", "split": split,
                 "source": "teacher", "model": model, "sample_index": self.samples, "rationale": text, "text": text,
                 "rationale_hash": rationale_hash(text), "answer": answer, "created_at": now()}
            )  # fmt: skip
        self.store.append(RATIONALES, pa.Table.from_pylist(rows, RATIONALES.schema))
        return [f"s{self.samples - len(texts) + number:03d}" for number in range(1, len(texts) + 1)]

    def vote(self, split: str = "train") -> None:
        vote(self.store, LAB, self.rule, split)

    def prepare(self, config: TrainingConfig | None = None, dataset: DatasetConfig = PATH) -> Prepared:
        """Prepares a training as a run does that then takes it up."""
        prepared = self.only_prepare(config, dataset)
        with Training(prepared.folder).held(prepared.spec):
            return prepared

    def only_prepare(self, config: TrainingConfig | None = None, dataset: DatasetConfig = PATH) -> Prepared:
        parts = Parts.of(dataset, "lab")
        return prepare_training(self.root / "trainings", self.store, "lab", self.rule, parts, config or tiny_training())


def tiny_training(**sections: Any) -> TrainingConfig:
    """A training of seconds; a section's settings win over those here."""
    settings: dict[str, dict[str, Any]] = {
        "student": {
            "model": "new", "dropout": 0.1, "max_input_tokens": 80, "max_target_tokens": 40,
            "new": {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 24, "vocab_size": 320},
        },
        "method": {"delta": 9.0},
        "negatives": {"lag": 2, "max_tokens": 10},
        "discriminator": {"pretrain_steps": 3, "update_steps": 2, "update_every": 2, "batch_size": 4},
        "optimisation": {"batch_size": 4, "device": "cpu", "learning_rate": 1e-3, "checkpoint_every_s": 1e-9},
        "rounds": {"rounds": 4, "answer_tokens": 4, "threads": 1},
    }  # fmt: skip
    for name, own in sections.items():
        settings[name] = {**settings.get(name, {}), **own}
    return TrainingConfig.model_validate(settings)


def small_world(root: Path) -> World:
    """Twelve questions with two right samples and a wrong one each, and a few for validation and test; a copy."""
    torch.set_num_threads(1)
    shutil.copytree(_template() / "store", root / "store")
    return World(root, samples=36)


@cache
def _template() -> Path:
    world = World(lasting_folder())
    for number in range(12):
        first, second = number + 2, number % 5 + 1
        total = first + second
        key = world.ask(f"Ann has {first} nuts and gets {second}. How many?", str(total))
        world.sample(
            key,
            (f"{first} + {second} = {total}.", str(total)),
            (f"She has {total} then.", str(total)),
            (f"{first} - {second} = {first - second}.", str(first - second)),
        )
    for split, count in (("validation", 4), ("test", 3)):
        for number in range(count):
            world.ask(f"Ben has {number} cards for the {split} and finds 3. How many?", str(number + 3), split)
    world.vote()
    return world.root


def spec_of(prepared: Prepared) -> TrainingSpec:
    return Training(prepared.folder).spec


def method(**settings: Any) -> TrainingConfig:
    """A tiny training of a method."""
    return tiny_training(method=MethodConfig.model_validate(settings).model_dump())
