"""Whether TRL reads what `qcrd export` writes: a few steps of its trainers, on a processor, with random weights.

    qcrd export sft.jsonl --dataset svamp --as sft
    qcrd export pairs.parquet --dataset svamp --as preferences
    python -m benchmarks.trl_loader sft.jsonl pairs.parquet

TRL and `datasets` are not in the lock files; have them in an environment of their own (`pip install trl datasets`).
The model is a Llama of random weights and its tokenizer is trained on the file, so nothing is downloaded. A file with
the column `chosen` goes to `DPOTrainer`, another to `SFTTrainer`. Prints each one's columns, rows and losses.
"""

import argparse
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

STEPS, VOCABULARY = 3, 500
PAD, END = "<pad>", "</s>"
TEXTS = ("prompt", "completion", "chosen", "rejected")


def main() -> None:
    """Trains on every file that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="what qcrd export wrote: JSONL or Parquet")
    files = parser.parse_args().files
    print(", ".join(f"{name} {version(name)}" for name in ("trl", "datasets", "transformers", "torch")))
    for file in files:
        _train(file)


def _train(file: Path) -> None:
    from datasets import load_dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    rows = load_dataset("parquet" if file.suffix == ".parquet" else "json", data_files=str(file), split="train")
    tokenizer = _tokenizer(rows)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes))
    pairs = "chosen" in rows.column_names
    trainer, settings = (DPOTrainer, DPOConfig) if pairs else (SFTTrainer, SFTConfig)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)  # TRL loads the reference model from there
        tokenizer.save_pretrained(folder)
        arguments = settings(
            output_dir=f"{folder}/out", max_steps=STEPS, per_device_train_batch_size=4, logging_steps=1,
            report_to="none", use_cpu=True, bf16=False, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        training = trainer(model=folder, args=arguments, train_dataset=rows, processing_class=tokenizer)
        training.train()
    losses = [entry["loss"] for entry in training.state.log_history if "loss" in entry]
    print(f"{file.name}: {trainer.__name__}, {len(rows):,} rows, {', '.join(rows.column_names)}; losses {losses}")


def _tokenizer(rows: Any) -> Any:
    """A byte-level tokenizer trained on the rows' texts."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    texts = (row[name] for row in rows for name in TEXTS if row.get(name))
    trained.train_from_iterator(texts, vocab_size=VOCABULARY, special_tokens=[PAD, END])
    special = {"pad_token": PAD, "eos_token": END}
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, **special)


if __name__ == "__main__":
    main()
