"""Which precision this machine computes in; the one place that decides it.

What the choices rest on was measured with `python -m benchmarks.precision` (docs/measurements.md).
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Literal

from models.configs import OptimisationConfig
from models.hardware import bfloat16_gpu, gpu_names, torch_gpus
from models.processor import AMX, Processor, detect_processor

Precision = Literal["float32", "bfloat16"]
Device = Literal["cpu", "cuda"]

SAMPLING_FACTOR = 2.0
"""Times as long as in float32 that vLLM samples for where bfloat16 is emulated (measured with AVX2)."""


def trains_on_gpu(config: OptimisationConfig) -> bool:
    """Whether students are trained on a GPU here; found without torch."""
    return config.device == "auto" and bool(torch_gpus())


def gpus_for(config: OptimisationConfig) -> tuple[str, ...]:
    """The GPUs that students may be trained on here, as CUDA_VISIBLE_DEVICES names each; none where it is the cores."""
    return gpu_names() if trains_on_gpu(config) else ()


def product_precision(device: Device, processor: Processor | None = None) -> Precision:
    """The faster precision for products that tolerate bfloat16's rounding, such as Muon's orthogonalisation.

    Args:
        device: where they are computed.
        processor: this machine's if left out.
    """
    native = bfloat16_gpu() if device == "cuda" else (processor or detect_processor()).native_bfloat16
    return "bfloat16" if native else "float32"


def decided_precision(config: OptimisationConfig, processor: Processor | None = None) -> Precision:
    """The precision that students are trained in here: what the configuration says, or what its `auto` means.

    `auto` is autocast to bfloat16 (weights stay float32) on GPUs that multiply in it and on AMX, whose tiles make eight
    times as many bfloat16 products a cycle as AVX-512 (by Intel's data; there was none to measure on). Everywhere else
    it is float32. Where a processor emulates bfloat16, that is faster by far. AVX-512 with bfloat16 would gain a factor
    of 1.3 to 1.5, and goes without: so equal settings give equal students, up to rounding, on every other processor.
    """
    if config.precision != "auto":
        return config.precision
    if trains_on_gpu(config):
        return product_precision("cuda")
    return "bfloat16" if (processor or detect_processor()).uses == AMX else "float32"


def emulated_settings(settings: Mapping[str, str], processor: Processor | None = None) -> list[str]:
    """Names of the settings that ask for bfloat16 on a CPU that only emulates it.

    Args:
        settings: name, as people know it -> the precision it asks for.
        processor: this machine's if left out.
    """
    asking = [name for name, value in settings.items() if value == "bfloat16"]
    return asking if asking and product_precision("cpu", processor) == "float32" else []


def emulation_warning(
    names: Sequence[str], factor: float, work: str = "a matrix product", processor: Processor | None = None
) -> str:
    """What to tell somebody whose settings `emulated_settings` named.

    Args:
        names: from there, at least one.
        factor: times as long as in float32 that `work` takes.
        processor: this machine's if left out.
    """
    verb, them = ("is", "it") if len(names) == 1 else ("are", "them")
    return (
        f"{' and '.join(names)} {verb} bfloat16, which this processor ({(processor or detect_processor()).uses}) only "
        f"emulates: {work} takes about {factor:.0f} times as long as in float32. Set {them} to float32."
    )


def emulation_factor(turns: int = 3) -> float:
    """Times as long as in float32 that a bfloat16 matrix product takes here; imports torch, and computes for 50 ms."""
    import torch

    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for turn in range(turns + 1):
        for dtype, found in seconds.items():
            square = torch.ones(256, 256, dtype=dtype)
            started = time.perf_counter()
            square @ square
            if turn:  # the first one warms up
                found.append(time.perf_counter() - started)
    plain, half = (statistics.median(found) for found in seconds.values())
    return half / plain
