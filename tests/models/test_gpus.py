"""Several GPUs: which ones there are, and how vLLM's server uses them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import hardware
from models.hardware import Hardware, detect_hardware, gpu_names, nvidia_gpus, torch_gpus
from models.processor import AVX2, Processor
from models.server_parallel import parallel_arguments
from models.server_settings import ServerConfig, server_command


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose driver tells of four GPUs of 80 GiB, and a CUDA build of torch."""
    tool = tmp_path / "nvidia-smi"
    lines = "\n".join(f"GPU {number}: NVIDIA H100 (UUID: GPU-{number}{number}ab)" for number in range(4))
    tool.write_text(f"#!/bin/sh\ncase \"$1\" in\n-L) echo '{lines}';;\n*) echo '81920 MiB\n81920 MiB';;\nesac\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(hardware, "_cpu_build_installed", lambda: False)
    nvidia_gpus.cache_clear()
    yield
    nvidia_gpus.cache_clear()


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("shown", "names"),
    [
        (None, ("0", "1", "2", "3")),
        ("3", ("3",)),
        ("2, 0", ("2", "0")),
        ("GPU-11ab,GPU-33", ("GPU-11ab", "GPU-33")),
        ("1,9,2", ("1",)),  # CUDA ignores what follows an unknown one
        ("-1", ()),
        ("", ()),
    ],
)
def test_which_gpus_are_visible(shown: str | None, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert gpu_names() == names
    assert len(torch_gpus()) == len(names)
    found = detect_hardware()
    assert len(found.gpus) == len(names)
    assert found.gpu_memory_gib == (80.0 if names else None)


def model(folder: Path, gib: float, heads: int) -> str:
    """A model's folder with weights of a size; they take no room on the disk."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": heads, "max_position_embeddings": 64}))
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(int(gib * hardware.GIB))
    return str(folder)


def gpus(count: int, gib: float | None = 80.0) -> Hardware:
    names = tuple(f"GPU {number}: NVIDIA H100 (UUID: GPU-{number})" for number in range(count))
    return Hardware(names, (0, 1), 100.0, Processor("EPYC", AVX2, AVX2), gpu_memory_gib=gib)


@pytest.mark.parametrize(
    ("gib", "heads", "count", "arguments"),
    [
        (14, 32, 1, []),
        (14, 32, 8, ["--data-parallel-size", "8"]),
        (90, 32, 8, ["--tensor-parallel-size", "2", "--data-parallel-size", "4"]),
        (140, 64, 8, ["--tensor-parallel-size", "4", "--data-parallel-size", "2"]),
        (140, 64, 4, ["--tensor-parallel-size", "4"]),
        (140, 14, 8, ["--tensor-parallel-size", "2", "--data-parallel-size", "4"]),  # 14 heads cannot be split in four
        (90, 32, 3, ["--tensor-parallel-size", "2"]),
    ],
)
def test_a_server_uses_all_gpus(gib: float, heads: int, count: int, arguments: list[str], tmp_path: Path) -> None:
    assert parallel_arguments(model(tmp_path / "m", gib, heads), gpus(count), ()) == arguments


def test_a_hub_model_and_unknown_memory_get_a_copy_on_each_gpu(tmp_path: Path) -> None:
    assert parallel_arguments("org/name", gpus(4), ()) == ["--data-parallel-size", "4"]
    assert parallel_arguments(model(tmp_path / "m", 500, 64), gpus(4, None), ()) == ["--data-parallel-size", "4"]


@pytest.mark.parametrize(
    "given", [("--tensor-parallel-size", "2"), ("--data_parallel_size=1",), ("-tp", "2"), ("--pipeline", "2")]
)
def test_what_somebody_says_of_gpus_counts_alone(given: tuple[str, ...], tmp_path: Path) -> None:
    folder = model(tmp_path / "m", 14, 32)
    assert parallel_arguments(folder, gpus(4), given) == []
    command = server_command(ServerConfig(model=folder, extra_args=given), "m", 8000, gpus(4))
    assert tuple(command[-len(given) :]) == given
    assert not any(argument == "--data-parallel-size" for argument in command)


def test_they_are_in_the_server_s_command(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", 14, 32)
    command = server_command(ServerConfig(model=folder, extra_args=("--seed", "3")), "m", 8000, gpus(2))
    assert command[-4:] == ["--data-parallel-size", "2", "--seed", "3"]
