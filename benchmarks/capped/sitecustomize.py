"""Hides AVX-512 and AMX from vLLM. Python runs this file when it starts, where PYTHONPATH names this folder.

torch and oneDNN can be capped by environment variables. vLLM 0.32 has none: it asks `torch.cpu` for the processor's
instructions and takes one of its libraries of kernels accordingly (`vllm/platforms/cpu.py`). torch is not imported for
it, since most processes of a run do without.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

HIDDEN = ("avx512", "avx10", "amx")


class CappedTorch:
    """Finds `torch.cpu` when it is imported, and changes what it answers."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Python's hook: the module as everybody else finds it, to be changed once it is loaded."""
        del path, target
        if name != "torch.cpu":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def load_and_cap(module: ModuleType) -> None:
            load(module)
            found = dict(module.get_capabilities())
            capped = {key: False if key.startswith(HIDDEN) else value for key, value in found.items()}
            module.get_capabilities = lambda: capped  # type: ignore[attr-defined]

        spec.loader.exec_module = load_and_cap  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, CappedTorch())
