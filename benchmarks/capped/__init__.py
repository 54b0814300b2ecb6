"""A process that computes as on a processor with AVX2 only: the environment that it needs."""

import os
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own loops
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # bfloat16 products, and vLLM's of both kinds
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",  # float32 products
    "PYTHONPATH": os.pathsep.join([str(FOLDER), str(FOLDER.parents[1])]),  # with sitecustomize.py, for vLLM
}
