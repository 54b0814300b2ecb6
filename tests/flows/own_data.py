"""A small dataset of one's own with recorded samples, a configuration for it, and how two runs are compared."""

import json
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
from safetensors.torch import load_file

DATASET = """
name: sums
answers: number
question: "{body}"
fields: {label: total}
splits: {train: train.jsonl, test: test.jsonl}
instruction: Add up. Finish with "So the answer is NUMBER."
exemplars: []
"""

CONFIG = """
dataset: {name: sums.yaml, validation_split: null}
teacher: {source: import, files: [{path: samples.jsonl}]}
student:
  model: new
  new: {hidden: 16, layers: 1, heads: 2, intermediate: 24, vocab_size: 320}
  dropout: 0.1
  max_input_tokens: 80
  max_target_tokens: 40
compare: [dss]
negatives: {lag: 1, max_tokens: 10}
discriminator: {pretrain_steps: 10, update_steps: 5, batch_size: 4}
optimisation: {batch_size: 4, device: cpu, learning_rate: 1.0e-3, checkpoint_every_s: 0.05}
rounds: {rounds: 3, epochs_per_round: 4, answer_tokens: 4, threads: 1}
"""


SHORT_TRAINING = """
student:
  model: new
  new: {hidden: 16, layers: 1, heads: 2, intermediate: 24, vocab_size: 320}
  max_input_tokens: 80
  max_target_tokens: 40
optimisation: {batch_size: 16, device: cpu}
rounds: {rounds: 1, epochs_per_round: 1, answer_tokens: 4, threads: 1}
"""
"""For what trains only because it has to, in a second."""


def write_own_data(folder: Path, count: int = 60) -> None:
    """A dataset of `count` questions for training and up to 10 for test, three recorded samples of each of the former,
    and a configuration."""
    questions = [
        (f"Ann has {a} nuts and gets {b}. How many?", a, b)
        for a in range(2, 2 + (count + 10) // 7)
        for b in range(1, 8)
    ]
    rows = [{"body": body, "total": a + b} for body, a, b in questions]
    for name, part in (("train", rows[:count]), ("test", rows[count:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    samples = [
        {"body": body, "total": a + b, "samples": [
            {"teacher": "big", "text": f"{a} + {b} = {a + b}. So the answer is {a + b}."},
            {"teacher": "big", "text": f"She has {a} and {b}, {a + b} then. So the answer is {a + b}."},
            {"teacher": "big", "text": f"{a} - {b} = {a - b}. So the answer is {a - b}."},
        ]}
        for body, a, b in questions[:count]
    ]  # fmt: skip
    lines = "".join(json.dumps(row) + "\n" for row in samples)
    (folder / "samples.jsonl").write_text(lines, encoding="utf-8")
    (folder / "sums.yaml").write_text(DATASET, encoding="utf-8")
    (folder / "small.yaml").write_text(CONFIG, encoding="utf-8")


def family(pid: int) -> list[psutil.Process]:
    """A process and all it has started."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def still_running(processes: list[psutil.Process]) -> list[list[str]]:
    """Command lines of those that are there 10 seconds later."""
    _, alive = psutil.wait_procs(processes, timeout=10)
    return [process.cmdline() for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def weights(home: Path, result: dict[str, Any]) -> dict[str, bytes]:
    """The bytes of the weights of each method's best round."""
    found = {}
    for method in result["methods"]:
        folder = home / "trainings" / method["training_id"] / f"round-{method['best']:03d}"
        file = next(folder.glob("step-*/model/model.safetensors"))
        found[method["method"]] = weights_in(file)
    return found


def weights_in(file: Path) -> bytes:
    """All tensors of a file, in the order of their names."""
    return b"".join(value.numpy().tobytes() for _, value in sorted(load_file(file).items()))


def without_clock(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Every method's figures, less those that say when, where and how long."""
    clocks = {"seconds", "folder", "mlflow_run", "mlflow_round", "mlflow_model", "mlflow_url"}

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(one) for key, one in value.items() if key not in clocks}
        return [clean(one) for one in value] if isinstance(value, list) else value

    cleaned: list[dict[str, Any]] = clean(result["methods"])
    return cleaned
