"""How vLLM's server uses several GPUs: a copy of the model on each, or one model over several where it needs them."""

import json
from pathlib import Path

from models.hardware import GIB, Hardware

ARGUMENTS = ("--tensor-parallel-size", "--data-parallel-size", "--pipeline-parallel-size", "-tp", "-dp", "-pp")
MEMORY_SHARE = 0.6  # of a GPU's memory for weights; the rest is for the key-value cache, which makes vLLM fast


def names_parallelism(arguments: tuple[str, ...]) -> bool:
    """Whether arguments of vLLM's server say themselves how it uses several GPUs."""
    given = [argument.partition("=")[0].replace("_", "-") for argument in arguments]
    # Python's argument parsers take "--tensor" for "--tensor-parallel-size", too.
    return any(
        name in ARGUMENTS or (len(name) > 4 and any(full.startswith(name) for full in ARGUMENTS)) for name in given
    )


def parallel_arguments(model: str, hardware: Hardware, given: tuple[str, ...]) -> list[str]:
    """Arguments of vLLM's server that make it use all GPUs of this machine; none for a single one.

    A copy of the model on each GPU samples most, since copies exchange nothing (`--data-parallel-size`). Weights that
    leave too little of one GPU for the key-value cache are split over the fewest that hold them, a power of two that
    divides the attention heads (`--tensor-parallel-size`), and copies take what is left. How large a hub's model is
    nobody knows before it is fetched, so it gets a copy on each.

    Args:
        model: a model's folder, or its id on the hub.
        hardware: this machine.
        given: arguments that somebody chose; where they say how to use several GPUs, nothing is added.
    """
    gpus = len(hardware.gpus)
    if gpus < 2 or names_parallelism(given):
        return []
    each = gpus_a_copy(model, hardware)
    copies = gpus // each
    return [
        *(["--tensor-parallel-size", str(each)] if each > 1 else []),
        *(["--data-parallel-size", str(copies)] if copies > 1 else []),
    ]


def gpus_a_copy(model: str, hardware: Hardware) -> int:
    """How many GPUs a copy of a model needs; 1 where that is not known."""
    folder = Path(model).expanduser()
    config_file = folder / "config.json"
    if hardware.gpu_memory_gib is None or not config_file.is_file():
        return 1
    heads = json.loads(config_file.read_text(encoding="utf-8")).get("num_attention_heads")
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    each, most = 1, hardware.gpu_memory_gib * GIB * MEMORY_SHARE
    while (
        weights > each * most and 2 * each <= len(hardware.gpus) and isinstance(heads, int) and heads % (2 * each) == 0
    ):
        each *= 2
    return each
