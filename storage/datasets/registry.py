"""Finds a dataset by name: a built-in one, `reasoning-gym:NAME`, or the path of a YAML file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from storage.datasets.aqua import aqua
from storage.datasets.arc import arc
from storage.datasets.boolq import boolq
from storage.datasets.cqa import cqa
from storage.datasets.custom import load_custom
from storage.datasets.definition import Dataset
from storage.datasets.gsm8k import gsm8k
from storage.datasets.inference import anli, esnli
from storage.datasets.openbookqa import openbookqa
from storage.datasets.strategyqa import strategyqa
from storage.datasets.svamp import svamp, svamp_equation
from storage.errors import BadFile, UnknownName

REASONING_GYM = "reasoning-gym:"
_HINT = f"Or {REASONING_GYM}NAME, or the path of a YAML file that describes your own."


def _lab() -> Dataset:
    from storage.datasets.lab import lab_dataset

    return lab_dataset()


BUILT_IN: dict[str, Callable[[], Dataset]] = {
    "anli1": partial(anli, 1),
    "anli2": partial(anli, 2),
    "anli3": partial(anli, 3),
    "aqua": aqua,
    "arc": partial(arc, "ARC-Challenge", "arc"),
    "arc-easy": partial(arc, "ARC-Easy", "arc-easy"),
    "boolq": boolq,
    "cqa": cqa,
    "esnli": esnli,
    "gsm8k": gsm8k,
    "lab": _lab,
    "openbookqa": openbookqa,
    "strategyqa": strategyqa,
    "svamp": svamp,
    "svamp-equation": svamp_equation,
}
"""Built-in datasets by name. A user's own may not have one of these names."""


def get_dataset(name: str) -> Dataset:
    """The dataset of that name.

    Args:
        name: "svamp", "reasoning-gym:gsm_symbolic", "folder/mine.yaml" ...

    Raises:
        UnknownName: there is no such dataset.
        BadFile: the YAML file is missing or wrong.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]()
    if name.startswith(REASONING_GYM):
        # Imported here because it takes a second or two.
        from storage.datasets.reasoning_gym import reasoning_gym_dataset

        return reasoning_gym_dataset(name.removeprefix(REASONING_GYM))
    if name.lower().endswith((".yaml", ".yml")):
        dataset = load_custom(name)
        if dataset.name in BUILT_IN:
            raise BadFile(f"{name}: name: {dataset.name!r} is a built-in dataset; choose another name")
        return dataset
    here = f"{name}.yaml"
    raise UnknownName("dataset", name, BUILT_IN, f"{here} is here: name it so." if Path(here).is_file() else _HINT)
