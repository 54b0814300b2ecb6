"""Tokens per second of `qcrd sample`, storing included, against vLLM's own offline `LLM.generate`.

    python -m benchmarks.sampling                         # the lab's teacher (`qcrd lab build` first)
    python -m benchmarks.sampling --model FOLDER --questions 40 --max-tokens 128

Both get the same prompts, the same number of samples a prompt, the same sampling parameters with a seed for every
sample, and the same engine settings. Both engines are loaded before the clock starts and warmed up once, then they
take turns; one rests while the other runs. Counted are the completion tokens: ours as `qcrd sample` reports them (from
its first request to its last stored row), the other's from the outputs of `generate`. A run's ratio is ours divided by
the other's right after it; quoted is the median ratio.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from models.hardware import detect_hardware
from models.revision import has_chat_template
from models.seeds import request_seed
from models.server import VllmServer
from models.server_settings import ServerConfig, child_environment, server_command
from storage.datasets.registry import get_dataset
from storage.ids import example_id
from storage.schemas import EXAMPLES
from storage.store import Store
from tasks.questions.stored import store_examples
from tasks.teacher.lab import find_lab

OFFLINE = "benchmarks.sampling"


def offline_worker() -> None:
    """A process of its own: loads the model once, then reads one job per line and writes one result per line."""
    from vllm import LLM, SamplingParams
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    results = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # vLLM logs to standard output
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    setup = json.loads(sys.stdin.readline())
    llm = LLM.from_engine_args(EngineArgs.from_cli_args(parser.parse_args(setup["arguments"])))
    results.write("ready\n")
    for line in sys.stdin:
        job = json.loads(line)
        parameters = [
            SamplingParams(
                n=job["n"], temperature=0.7, top_p=1.0, max_tokens=job["max_tokens"], seed=seed, stop=job["stop"]
            )
            for seed in job["seeds"]
        ]
        start = time.perf_counter()
        if job["chat"]:
            outputs = llm.chat(job["prompts"], parameters, use_tqdm=False)
        else:
            outputs = llm.generate(job["prompts"], parameters, use_tqdm=False)
        seconds = time.perf_counter() - start
        tokens = sum(len(sample.token_ids) for output in outputs for sample in output.outputs)
        results.write(json.dumps({"tokens": tokens, "seconds": seconds}) + "\n")


class Offline:
    """vLLM's `LLM` in a process of its own, with the engine settings of our server."""

    def __init__(self, model: str, log: Path) -> None:
        hardware = detect_hardware()
        server = server_command(ServerConfig(model=model), "m", 1, hardware)
        only_server = ("--served-model-name", "--host", "--port")
        arguments = [
            word
            for place, word in enumerate(server)
            if place >= 3
            and word not in (*only_server, "--disable-uvicorn-access-log")
            and server[place - 1] not in only_server
        ]
        self._log = log.open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", OFFLINE, "--offline-worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env=child_environment(model, hardware), start_new_session=True,
        )  # fmt: skip
        self._say({"arguments": arguments})
        self._hear()

    def _say(self, job: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the offline engine died; see {self._log.name}")
        return line

    def generate(self, job: dict[str, Any]) -> dict[str, float]:
        self._say(job)
        result: dict[str, float] = json.loads(self._hear())
        return result

    def close(self) -> None:
        """Ends it and the engine processes it started; those stay behind when only the first one is ended."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()


def prompts_of(model: str, questions: int, run_seed: int, n: int, max_tokens: int) -> dict[str, Any]:
    """The offline engine's job: exactly what `qcrd sample` asks for with this run seed."""
    dataset = get_dataset("lab")
    chat = has_chat_template(model)
    job: dict[str, Any] = {"prompts": [], "seeds": [], "n": n, "max_tokens": max_tokens, "chat": chat, "stop": []}
    for example in dataset.load("train", None, questions):
        prompt = dataset.teacher_prompt(example.question, example.choices)
        key = example_id("lab", "train", example.question, example.choices)
        job["prompts"].append(prompt.messages() if chat else prompt.plain)
        job["seeds"].append(request_seed(key, run_seed, 0))
        job["stop"] = [] if chat else list(prompt.stop)
    return job


def ours(server: VllmServer, home: Path, run_seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One `qcrd sample` process."""
    command = [
        sys.executable, "-c", "from flows.cli import main; main()", "sample", "--home", str(home), "--dataset", "lab",
        "--limit", str(arguments.questions), "--n", str(arguments.n), "--max-tokens", str(arguments.max_tokens),
        "--seed", str(run_seed), "--url", server.base_url, "--model", server.served_name, "--json",
        "--api", "chat" if has_chat_template(arguments.model) else "completions",
        "--in-flight", str(arguments.in_flight),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["sampled"] == arguments.questions * arguments.n
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model folder; default: the lab's teacher under .qcrd")
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--n", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--offline-worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.offline_worker:
        offline_worker()
        return
    console = Console()
    if arguments.model is None:
        lab = find_lab(Path(".qcrd"))
        if lab is None:
            raise SystemExit("The lab's teacher is not built: run `qcrd lab build`, or give --model FOLDER.")
        arguments.model = str(lab)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store = Store(folder / "home" / "store")
        dataset = get_dataset("lab")
        store_examples(store, dataset, "train", dataset.load("train", None, arguments.questions))
        assert store.parts(EXAMPLES)
        console.print(f"loading both engines with {arguments.model} ...")
        with (
            closing(Offline(arguments.model, folder / "offline.log")) as offline,
            VllmServer(ServerConfig(model=arguments.model), folder / "server.log") as server,
        ):
            ratios, table = [], Table("run", "qcrd sample, tokens/s", "LLM.generate, tokens/s", "ratio", box=None)
            for number in range(arguments.runs + 1):
                mine = ours(server, folder / "home", number, arguments)
                job = prompts_of(arguments.model, arguments.questions, number, arguments.n, arguments.max_tokens)
                other = offline.generate(job)
                speeds = mine["completion_tokens"] / mine["seconds"], other["tokens"] / other["seconds"]
                console.print(f"run {number}: {mine['completion_tokens']} and {other['tokens']:.0f} tokens, {speeds}")
                if number == 0:
                    continue  # both warm up
                ratios.append(speeds[0] / speeds[1])
                table.add_row(str(number), f"{speeds[0]:,.0f}", f"{speeds[1]:,.0f}", f"{ratios[-1]:.3f}")
            console.print(table)
            console.print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
