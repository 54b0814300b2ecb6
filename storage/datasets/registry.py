"""Finds a dataset by name: a built-in one, `reasoning-gym:NAME`, or the path of a YAML file."""

from collections.abc import Callable

from storage.datasets.cqa import cqa
from storage.datasets.custom import load_custom
from storage.datasets.definition import Dataset
from storage.datasets.gsm8k import gsm8k
from storage.datasets.inference import anli1, esnli
from storage.datasets.svamp import svamp, svamp_equation
from storage.errors import UnknownName

REASONING_GYM = "reasoning-gym:"
_HINT = f"Or {REASONING_GYM}NAME, or the path of a YAML file that describes your own."


def _lab() -> Dataset:
    from storage.datasets.lab import lab_dataset

    return lab_dataset()


BUILT_IN: dict[str, Callable[[], Dataset]] = {
    "anli1": anli1,
    "cqa": cqa,
    "esnli": esnli,
    "gsm8k": gsm8k,
    "lab": _lab,
    "svamp": svamp,
    "svamp-equation": svamp_equation,
}
"""Built-in datasets by name; `custom.RESERVED_NAMES` repeats the names."""


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
        return load_custom(name)
    raise UnknownName("dataset", name, BUILT_IN, _HINT)
