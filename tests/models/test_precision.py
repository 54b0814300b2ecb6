"""What is chosen from what a machine computes, and what is said where somebody chose otherwise."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models import hardware, precision
from models.configs import OptimisationConfig
from models.hardware import bfloat16_gpu, nvidia_gpus, torch_gpus
from models.precision import (
    decided_precision,
    emulated_settings,
    emulation_factor,
    emulation_warning,
    product_precision,
    trains_on_gpu,
)
from models.processor import AMX, AVX2, AVX512, AVX512_BF16, BASIC, NEON, NEON_BF16, UNKNOWN, Processor

AUTO = OptimisationConfig()
Driver = Callable[[str], None]


def processor(uses: str) -> Processor:
    return Processor("Some CPU", uses, uses)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "torch_gpus", lambda: ())


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """A machine with NVIDIA's tool, and GPUs of some compute capabilities, one a line."""

    def install(capabilities: str) -> None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(
            '#!/bin/sh\ncase "$1" in\n-L) echo "GPU 0: NVIDIA H200 (UUID: GPU-1)";;\n'
            f'*) printf "{capabilities}";;\nesac\n'
        )
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(hardware, "_cpu_build_installed", lambda: False)
        forget()

    def forget() -> None:
        nvidia_gpus.cache_clear()
        bfloat16_gpu.cache_clear()

    yield install
    forget()


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("uses", "products", "training"),
    [
        (BASIC, "float32", "float32"),
        (AVX2, "float32", "float32"),
        (AVX512, "float32", "float32"),
        (AVX512_BF16, "bfloat16", "float32"),
        (AMX, "bfloat16", "bfloat16"),
        (NEON, "float32", "float32"),
        (NEON_BF16, "bfloat16", "float32"),
        (UNKNOWN, "float32", "float32"),
    ],
)
def test_what_each_processor_computes_in(uses: str, products: str, training: str) -> None:
    assert product_precision("cpu", processor(uses)) == products
    assert decided_precision(AUTO, processor(uses)) == training
    for named in ("float32", "bfloat16"):
        assert decided_precision(OptimisationConfig.model_validate({"precision": named}), processor(uses)) == named


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ("9.0\\n", "bfloat16"),
        ("8.0\\n", "bfloat16"),
        ("7.5\\n", "float32"),
        ("12.0\\n7.0\\n", "float32"),
        ("", "float32"),
        ("[N/A]\\n", "float32"),
    ],
)
def test_gpus_train_in_what_all_of_them_multiply_in(gpu: Driver, capabilities: str, expected: str) -> None:
    gpu(capabilities)
    assert trains_on_gpu(AUTO)
    assert decided_precision(AUTO, processor(AVX2)) == product_precision("cuda") == expected


def test_a_gpu_that_is_left_alone_decides_nothing(gpu: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu("9.0\\n")
    assert decided_precision(OptimisationConfig(device="cpu"), processor(AVX2)) == "float32"
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert decided_precision(AUTO, processor(AVX2)) == "float32"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert torch_gpus()
    monkeypatch.setattr(hardware, "_cpu_build_installed", lambda: True)
    assert not torch_gpus()


def test_what_asks_for_emulated_bfloat16_is_named() -> None:
    asked = {"optimisation.precision": "bfloat16", "student.dtype": "bfloat16"}
    assert emulated_settings(asked, processor(AVX2)) == list(asked)
    assert emulated_settings(asked | {"student.dtype": "float32"}, processor(AVX512)) == ["optimisation.precision"]
    assert emulated_settings(asked, processor(AVX512_BF16)) == []
    assert emulated_settings({"optimisation.precision": "auto"}, processor(AVX2)) == []


def test_the_warning_says_what_it_costs_and_what_to_do() -> None:
    assert emulation_warning(["optimisation.precision"], 31.4, processor=processor(AVX2)) == (
        "optimisation.precision is bfloat16, which this processor (AVX2) only emulates: a matrix product takes about "
        "31 times as long as in float32. Set it to float32."
    )
    assert emulation_warning(["optimisation.precision", "student.dtype"], 2, "sampling", processor(AVX512)) == (
        "optimisation.precision and student.dtype are bfloat16, which this processor (AVX-512) only emulates: sampling "
        "takes about 2 times as long as in float32. Set them to float32."
    )


def test_the_factor_is_measured_on_the_spot() -> None:
    """Capped to AVX2 a bfloat16 product is slower, on whatever machine this runs."""
    code = "from models.precision import emulation_factor; print(emulation_factor())"
    environment = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert float(done.stdout) > 1
    assert emulation_factor() > 0
