"""A real vLLM server on this machine: sampling, seeds, every way to die, and nothing left behind.

One server serves all tests that only need it running or killed and started again; its port never changes.
"""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from models.errors import ServerFailed, TeacherFailed
from models.seeds import request_seed
from models.server import VllmServer, check_port
from models.server_settings import ServerConfig
from models.teacher import RequestRefused, SamplingConfig, Teacher, TeacherConfig, TeacherReply, TeacherRequest

pytestmark = pytest.mark.slow

PLAIN = SamplingConfig(n=5, max_tokens=24, api="completions")

# A program that serves a model until it is ended; says the port and its watchdog's pid when the server is up, and
# looks after the server when told to. No restarts, so that this fails if the server died.
PROGRAM = """
import asyncio, sys
from pathlib import Path
from models.server import VllmServer
with VllmServer(ServerConfig(model=sys.argv[1], max_restarts=0), Path(sys.argv[2])) as server:
    print(server.port, server.watchdog_pid, flush=True)
    sys.stdin.readline()
    asyncio.run(server.ensure_alive())
"""


def ask(name: str, seed: int | None = None, n: int = 5, prompt: str = "Ann has 3 apples.") -> TeacherRequest:
    first = request_seed(name, 0, 0) if seed is None else seed
    return TeacherRequest(name, prompt, [{"role": "user", "content": prompt}], (), n, first)


def sample(server: VllmServer, *requests: TeacherRequest, sampling: SamplingConfig = PLAIN, **settings: Any) -> Any:
    async def scenario() -> dict[str, TeacherReply]:
        async with teacher_of(server, sampling, **settings) as teacher:
            await teacher.check()
            return {reply.request_id: reply async for reply in teacher.sample_many(requests)}

    return asyncio.run(scenario())


def teacher_of(server: VllmServer, sampling: SamplingConfig = PLAIN, **settings: Any) -> Teacher:
    config = TeacherConfig(base_url=server.base_url, model=server.served_name, **settings)
    return Teacher(config, sampling, recover=server.ensure_alive)


def texts(reply: TeacherReply) -> list[str]:
    return [sample.text for sample in reply.samples]


def below(server: VllmServer) -> dict[str, psutil.Process]:
    """The server's processes by what they are: watchdog, api, engine."""
    assert server.watchdog_pid is not None
    found = {"watchdog": psutil.Process(server.watchdog_pid)}
    for process in psutil.Process(server.watchdog_pid).children(recursive=True):
        line = " ".join(process.cmdline())
        for name, mark in (("api", "api_server"), ("engine", "EngineCore")):
            if mark in line:
                found[name] = process
    return found


def alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def gone(processes: list[psutil.Process], within_s: float) -> bool:
    """Whether all end in time; dead ones whose parent has not collected them count as ended."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(alive(process) for process in processes):
            return True
        time.sleep(0.02)
    return False


def test_samples_of_one_request_differ_and_of_another_seed_too(vllm_server: VllmServer) -> None:
    replies = sample(vllm_server, ask("a"), ask("b"))
    assert len({*texts(replies["a"]), *texts(replies["b"])}) == 10
    assert [sample.index for sample in replies["a"].samples] == [0, 1, 2, 3, 4]
    assert {sample.finish_reason for sample in replies["a"].samples} <= {"stop", "length"}
    assert replies["a"].prompt_tokens > 0
    assert 0 < replies["a"].completion_tokens <= 5 * 24


def test_the_same_seed_repeats_the_same_text(vllm_server: VllmServer) -> None:
    # One at a time: a sample's arithmetic, and so now and then its text, depends on what else is in its batch.
    again = [sample(vllm_server, ask("a", seed=7))["a"] for _ in range(2)]
    assert texts(again[0]) == texts(again[1])


def test_sample_i_of_a_request_has_the_seed_plus_i(vllm_server: VllmServer) -> None:
    together = sample(vllm_server, ask("a", seed=1000, n=3))["a"]
    alone = [sample(vllm_server, ask("a", seed=sampled.seed, n=1))["a"] for sampled in together.samples]
    assert [sampled.seed for sampled in together.samples] == [1000, 1001, 1002]
    assert texts(together) == [texts(reply)[0] for reply in alone]


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_logprobs_and_token_counts(vllm_server: VllmServer, api: Any) -> None:
    with_logprobs = SamplingConfig(n=5, max_tokens=24, logprobs=True, api=api)
    reply = sample(vllm_server, ask("a"), sampling=with_logprobs)["a"]
    assert all(-12.0 < sampled.logprob < -3.0 for sampled in reply.samples)  # random weights: about -ln(300)
    assert sum(sampled.completion_tokens for sampled in reply.samples) == reply.completion_tokens

    without = SamplingConfig(n=5, max_tokens=24, api=api)
    counted = sample(vllm_server, ask("a"), sampling=without, return_token_ids=True)["a"]
    assert [sampled.completion_tokens for sampled in counted.samples] == [
        sampled.completion_tokens for sampled in reply.samples
    ]
    assert {sampled.logprob for sampled in counted.samples} == {None}


def test_a_prompt_that_is_too_long_is_refused_and_the_others_go_on(vllm_server: VllmServer) -> None:
    async def scenario() -> tuple[list[str], list[str]]:
        refused: list[RequestRefused] = []
        async with teacher_of(vllm_server) as teacher:
            requests = [ask("a"), ask("long", prompt="Ann has 3 apples. " * 200), ask("b")]
            got = [reply.request_id async for reply in teacher.sample_many(requests, refused.append)]
        return got, [str(error) for error in refused]

    got, refused = asyncio.run(scenario())
    assert sorted(got) == ["a", "b"]
    assert len(refused) == 1
    assert refused[0].startswith("request long: the prompt is too long for the teacher: This model's maximum context")


def test_a_wrong_model_name_is_told_at_once(vllm_server: VllmServer) -> None:
    async def scenario() -> None:
        config = TeacherConfig(base_url=vllm_server.base_url, model="tinny")
        async with Teacher(config, PLAIN) as teacher:
            await teacher.sample(ask("a"))

    with pytest.raises(TeacherFailed, match=r"named 'tinny'; it offers: tiny; did you mean 'tiny'\?$"):
        asyncio.run(scenario())


@pytest.mark.parametrize("victim", ["api", "engine", "watchdog"])
def test_all_requests_finish_though_the_server_is_killed(vllm_server: VllmServer, victim: str) -> None:
    port, restarts, before = vllm_server.port, vllm_server.restarts, below(vllm_server)
    requests = [ask(f"q{number}") for number in range(120)]

    async def scenario() -> list[TeacherReply]:
        replies = []
        async with teacher_of(vllm_server, SamplingConfig(n=5, max_tokens=100, api="completions")) as teacher:
            async for reply in teacher.sample_many(requests):
                replies.append(reply)
                if len(replies) == 20:
                    before[victim].kill()
        return replies

    replies = asyncio.run(scenario())
    assert sorted(reply.request_id for reply in replies) == sorted(request.request_id for request in requests)
    assert {len(reply.samples) for reply in replies} == {5}
    assert vllm_server.restarts == restarts + 1
    assert vllm_server.port == port
    assert gone(list(before.values()), within_s=1)


class Program:
    """A process that serves a model, for tests that end it."""

    def __init__(self, model: Path, log_file: Path) -> None:
        self.log_file = log_file
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(model), str(log_file)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.port = 0
        self.all: list[psutil.Process] = []  # watchdog, API server, engine ...

    def wait_until_up(self) -> None:
        assert self.process.stdout is not None
        self.port, watchdog = map(int, self.process.stdout.readline().split())
        self.all = [psutil.Process(watchdog), *psutil.Process(watchdog).children(recursive=True)]
        assert len(self.all) >= 4

    def wait_until_engine_starts(self) -> None:
        deadline = time.monotonic() + 120
        while not self._has_engine():
            assert time.monotonic() < deadline, "no engine was started"
            time.sleep(0.05)
        self.port = int(self.all[1].cmdline()[self.all[1].cmdline().index("--port") + 1])

    def _has_engine(self) -> bool:
        self.all = psutil.Process(self.process.pid).children(recursive=True)
        for process in self.all:
            with contextlib.suppress(psutil.NoSuchProcess):  # a helper that has ended since, collected or not
                if "EngineCore" in " ".join(process.cmdline()):
                    return True
        return False

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        for process in self.all:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def program(tiny_llama: Path, tmp_path: Path) -> Iterator[Program]:
    started = Program(tiny_llama, tmp_path / "server.log")
    yield started
    started.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_program_is_ended(program: Program, number: signal.Signals) -> None:
    program.wait_until_up()
    program.process.send_signal(number)
    assert gone(program.all, within_s=20)
    check_port("127.0.0.1", program.port)
    assert program.process.wait(timeout=20) == -number


def test_nothing_is_left_when_a_start_is_interrupted(program: Program) -> None:
    program.wait_until_engine_starts()
    program.process.send_signal(signal.SIGINT)  # Ctrl-C
    assert gone(program.all, within_s=30)
    check_port("127.0.0.1", program.port)
    assert program.process.wait(timeout=20) != 0


def test_a_server_that_dies_too_often_ends_the_program_and_leaves_nothing(program: Program) -> None:
    program.wait_until_up()
    next(process for process in program.all if "api_server" in " ".join(process.cmdline()[:3])).kill()
    _, errors = program.process.communicate("look after it\n", timeout=60)
    line = errors.strip().splitlines()[-1]
    assert line.startswith("models.errors.ServerFailed: vLLM's server was ended by signal 9: ")
    assert line.endswith(f"it was started again 0 times already (max_restarts), log: {program.log_file}")
    assert program.process.returncode == 1
    assert gone(program.all, within_s=1)
    check_port("127.0.0.1", program.port)


def test_a_start_that_takes_too_long_is_ended(tiny_llama: Path, tmp_path: Path) -> None:
    config = ServerConfig(model=str(tiny_llama), startup_timeout_s=2.0)
    server = VllmServer(config, tmp_path / "server.log")
    with pytest.raises(ServerFailed) as error:
        server.start()
    assert str(error.value) == (
        "vLLM's server did not start within 2 s (startup_timeout_s); it was importing vLLM - log: "
        f"{tmp_path / 'server.log'}"
    )
    assert server.watchdog_pid is None
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0
