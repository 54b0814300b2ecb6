"""What is read from /proc/cpuinfo and from the variables that cap torch and oneDNN."""

import subprocess
import sys
from pathlib import Path

import pytest

from models import processor
from models.processor import (
    AMX,
    AVX2,
    AVX512,
    AVX512_BF16,
    BASIC,
    NEON,
    NEON_BF16,
    UNKNOWN,
    detect_processor,
    read_processor,
)

OLD = "fpu sse sse2 ssse3 sse4_1 sse4_2 avx"
ROME = f"{OLD} f16c fma avx2 bmi1 bmi2"
ICE_LAKE = f"{ROME} avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni"
GENOA = f"{ICE_LAKE} avx512_bf16"
SAPPHIRE_RAPIDS = f"{GENOA} avx512_fp16 amx_bf16 amx_tile amx_int8"


def cpuinfo(flags: str, name: str = "Some CPU", vendor: str = "GenuineIntel") -> str:
    """The first core's block, as Linux prints it on x86."""
    lines = {"processor": "0", "vendor_id": vendor, "model name": name, "cpu MHz": "2596.1", "flags": flags, "bugs": ""}
    return "".join(f"{key}\t: {value}\n" for key, value in lines.items())


@pytest.mark.parametrize(
    ("flags", "has", "native"),
    [
        (OLD, BASIC, False),
        (f"{OLD} avx2", BASIC, False),  # without fma
        (ROME, AVX2, False),
        (f"{ROME} avx512f", AVX2, False),  # Xeon Phi: not the part of AVX-512 that oneDNN needs
        (ICE_LAKE, AVX512, False),
        (GENOA, AVX512_BF16, True),
        (SAPPHIRE_RAPIDS, AMX, True),
        (f"{GENOA} amx_tile amx_int8", AVX512_BF16, True),  # tiles without bfloat16
    ],
)
def test_x86_processors(flags: str, has: str, native: bool) -> None:
    found = read_processor(cpuinfo(flags), {})
    assert (found.has, found.uses, found.native_bfloat16, found.cap) == (has, has, native, "")
    assert found.describe == f"Some CPU, {has}"


@pytest.mark.parametrize(
    ("features", "has", "native"),
    [
        ("fp asimd evtstrm aes crc32", NEON, False),
        ("fp asimd sve i8mm bf16", NEON_BF16, True),
        ("fp", UNKNOWN, False),
    ],
)
def test_arm_processors(features: str, has: str, native: bool) -> None:
    text = f"processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
    found = read_processor(text, {"ONEDNN_MAX_CPU_ISA": "AVX2"})  # x86 processors' variable
    assert (found.has, found.uses, found.native_bfloat16) == (has, has, native)


def test_a_processor_that_cannot_be_read_is_taken_for_one_that_emulates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "none")
    found = detect_processor()
    assert (found.uses, found.native_bfloat16) == (UNKNOWN, False)


@pytest.mark.parametrize(
    ("variables", "uses", "cap"),
    [
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, AVX512_BF16, "ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, AVX512, "ONEDNN_MAX_CPU_ISA=AVX512_CORE"),
        ({"DNNL_MAX_CPU_ISA": "avx2"}, AVX2, "DNNL_MAX_CPU_ISA=avx2"),
        ({"ATEN_CPU_CAPABILITY": "avx2"}, AVX2, "ATEN_CPU_CAPABILITY=avx2"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "default"}, BASIC, "ATEN_CPU_CAPABILITY=default"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, AMX, ""),
        ({"ONEDNN_MAX_CPU_ISA": "DEFAULT", "ATEN_CPU_CAPABILITY": "avx512"}, AMX, ""),
        ({"ONEDNN_MAX_CPU_ISA": ""}, AMX, ""),
    ],
)
def test_caps_leave_less_of_a_processor(variables: dict[str, str], uses: str, cap: str) -> None:
    found = read_processor(cpuinfo(SAPPHIRE_RAPIDS), variables)
    assert (found.has, found.uses, found.cap) == (AMX, uses, cap)
    assert found.describe == "Some CPU, AMX" if not cap else f"Some CPU, {uses} (it has AMX; {cap})"


def test_a_cap_above_what_there_is_counts_nothing() -> None:
    found = read_processor(cpuinfo(ROME), {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"})
    assert (found.uses, found.cap) == (AVX2, "")


def test_who_made_it() -> None:
    assert read_processor(cpuinfo(ROME, vendor="AuthenticAMD"), {}).amd
    assert not read_processor(cpuinfo(ROME), {}).amd


def test_only_the_first_cores_block_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo(ROME, "first") + "\n" + cpuinfo(GENOA, "second"))
    monkeypatch.setattr(processor, "CPUINFO", file)
    assert detect_processor().describe.startswith("first, AVX2")


def test_looking_takes_no_torch() -> None:
    code = "import sys, models.precision, models.server_settings; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
