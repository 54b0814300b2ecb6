"""What this machine's processor computes: its vector instructions, and whether bfloat16 products are among them.

torch and vLLM accept bfloat16 on every processor, but only some multiply in it. On the others each number is converted
back and forth, and a product takes three to twenty times as long as in float32 (docs/measurements.md). Which precision
follows from that is decided in `models.precision`.

Read from Linux and from the environment, without importing torch.
"""

import itertools
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

BASIC, AVX2, AVX512, AVX512_BF16, AMX = "no AVX2", "AVX2", "AVX-512", "AVX-512 with bfloat16", "AMX"
NEON, NEON_BF16 = "NEON", "NEON with bfloat16"
UNKNOWN = "unknown instructions"
LADDER = (BASIC, AVX2, AVX512, AVX512_BF16, AMX)
"""Of x86 processors; each has the instructions of those before it."""
NATIVE_BFLOAT16 = (AVX512_BF16, AMX, NEON_BF16)

_FLAGS = {  # /proc/cpuinfo's names for the instructions that torch's libraries ask for
    AVX2: {"avx2", "fma"},
    AVX512: {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    AVX512_BF16: {"avx512_bf16"},
    AMX: {"amx_tile", "amx_bf16"},
}
# oneDNN computes the bfloat16 products of torch and of vLLM. Its documented values, and what they leave of the ladder.
_ONEDNN = {
    **dict.fromkeys(("SSE41", "AVX"), BASIC),
    **dict.fromkeys(("AVX2", "AVX2_VNNI", "AVX2_VNNI_2"), AVX2),
    **dict.fromkeys(("AVX512_CORE", "AVX512_CORE_VNNI"), AVX512),
    **dict.fromkeys(("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512"), AVX512_BF16),
}
CAPS = {
    "ONEDNN_MAX_CPU_ISA": _ONEDNN,
    "DNNL_MAX_CPU_ISA": _ONEDNN,  # its older name; read where the newer one is not set
    "ATEN_CPU_CAPABILITY": {"DEFAULT": BASIC, "AVX2": AVX2},  # torch's own loops; "avx512" is all it has
}
"""Environment variables that cap an x86 processor -> their values, in capitals -> what is left of the ladder."""


@dataclass(frozen=True)
class Processor:
    """A processor as torch and vLLM use it.

    Attributes:
        name: as Linux calls it; its architecture where it has no name.
        has: the most that it can: of `LADDER`, NEON, NEON_BF16 or UNKNOWN.
        uses: what the caps in the environment leave of that.
        cap: the one that counts, such as "ATEN_CPU_CAPABILITY=avx2"; empty where nothing is capped.
        amd: whether AMD made it.
    """

    name: str
    has: str
    uses: str
    cap: str = ""
    amd: bool = False

    @property
    def native_bfloat16(self) -> bool:
        """Whether bfloat16 products are computed as such, and not emulated."""
        return self.uses in NATIVE_BFLOAT16

    @property
    def describe(self) -> str:
        """One line for people."""
        return f"{self.name}, {self.uses}" + (f" (it has {self.has}; {self.cap})" if self.cap else "")


def detect_processor() -> Processor:
    """Looks at this machine; takes a millisecond."""
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as lines:
            # Each core has a block that ends in an empty line. The first one will do: a server has hundreds.
            block = "".join(itertools.takewhile(str.strip, lines))
    except OSError:  # no Linux
        block = ""
    return read_processor(block, os.environ)


def read_processor(cpuinfo: str, environment: Mapping[str, str]) -> Processor:
    """The processor that a block of /proc/cpuinfo describes.

    Args:
        cpuinfo: "name : value" lines.
        environment: where the caps are looked up.
    """
    pairs = (line.partition(":") for line in cpuinfo.splitlines())
    values = {key.strip().lower(): value.strip() for key, _, value in pairs}
    name = values.get("model name") or platform.machine()
    if "features" in values:  # arm64
        flags = set(values["features"].split())
        has = NEON_BF16 if {"asimd", "bf16"} <= flags else NEON if "asimd" in flags else UNKNOWN
        return Processor(name, has, has)
    if "flags" not in values:
        return Processor(name, UNKNOWN, UNKNOWN)
    flags = set(values["flags"].split())
    has = BASIC
    for step, needed in _FLAGS.items():
        if not needed <= flags:
            break
        has = step
    uses, cap = has, ""
    for variable, left in CAPS.items():
        limit = left.get(environment.get(variable, "").upper(), has)
        if LADDER.index(limit) < LADDER.index(uses):
            uses, cap = limit, f"{variable}={environment[variable]}"
    return Processor(name, has, uses, cap, amd=values.get("vendor_id") == "AuthenticAMD")
