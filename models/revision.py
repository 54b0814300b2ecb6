"""A fingerprint of a local model folder, so that a retrained teacher of the same name is not taken for the old one."""

import hashlib
from pathlib import Path

EDGE_BYTES = 1 << 20
SUFFIXES = (".safetensors", ".bin", ".gguf", ".json", ".model", ".jinja", ".txt")


def model_revision(model: str) -> str | None:
    """12 hexadecimal digits for a local model folder; None for a model named by its hub id.

    Weights can be tens of gigabytes, so of each file its size and its first and last MiB count. Training changes
    every tensor, so two different models differ there.
    """
    folder = Path(model)
    if not folder.is_dir():
        return None
    digest = hashlib.blake2b(digest_size=6)
    for file in sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}:".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(EDGE_BYTES))
            stream.seek(max(0, size - EDGE_BYTES))
            digest.update(stream.read(EDGE_BYTES))
    return digest.hexdigest()


def has_chat_template(model: str) -> bool:
    """Whether a local model folder's tokenizer has a chat template."""
    folder = Path(model)
    config = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").is_file() or (
        config.is_file() and '"chat_template"' in config.read_text(encoding="utf-8")
    )
