"""`qcrd sample` against endpoints that misbehave, two at once, and stopped: nothing lost, nothing twice."""

import asyncio
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from storage.checking import check_store
from storage.store import Store
from tasks.teacher.receiving import STORE_EVERY_S, store_pause
from tests.conftest import qcrd_command
from tests.models.endpoint import KEY, Endpoint, gives, good, says, serving, too_late
from tests.warm_start import Started, shared_warm_start

N = 5


def questions(folder: Path, count: int) -> Path:
    file = folder / "questions.jsonl"
    rows = (
        {"question": f"Ann has {n} apples and eats 1. How many are left?", "label": str(n - 1)} for n in range(count)
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


class Sampling:
    """A running `qcrd sample`, while this process serves its endpoint."""

    def __init__(self, process: "Started | subprocess.Popen[str]") -> None:
        self._process = process

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        """kill -9; returns when it is gone."""
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    async def to_the_end(self) -> tuple[int | None, str, str]:
        """Its exit code, standard output, standard error."""
        out, err = await asyncio.to_thread(self._process.communicate)
        return self._process.returncode, out, err


@asynccontextmanager
async def sampling(
    home: Path, endpoint: Any, file: Path, *more: object, cold: bool = False, **env: str
) -> AsyncIterator[Sampling]:
    """A running `qcrd sample`; killed on the way out if it still runs.

    Args:
        cold: it is a new Python, and a child of this process.
    """
    arguments = (
        "sample", "--dataset", "svamp", "--path", file, "--url", endpoint.url, "--model", "lab",
        "--api", "completions", "--n", N, "--json", *more,
    )  # fmt: skip
    both: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": {**os.environ, **env}}
    with (
        subprocess.Popen(qcrd_command(home, *arguments), text=True, **both)
        if cold
        else shared_warm_start().start(home, *arguments, **both)
    ) as process:
        try:
            yield Sampling(process)
        finally:
            process.kill()


async def sample(home: Path, endpoint: Any, file: Path, *more: object, **env: str) -> tuple[int | None, str, str]:
    """Runs `qcrd sample` to its end: exit code, standard output, standard error."""
    async with sampling(home, endpoint, file, *more, cold=False, **env) as process:
        return await process.to_the_end()


def assert_every_sample_once(home: Path, count: int) -> None:
    store = Store(home / "store")
    rows = store.query(
        "SELECT example_id, list_sort(list(sample_index)) AS indices, count(DISTINCT seed) AS seeds, "
        "count(DISTINCT sample_id) AS ids FROM rationales GROUP BY ALL ORDER BY ALL"
    ).to_pylist()
    assert len(rows) == count
    for row in rows:
        assert row["indices"] == list(range(N))
        assert (row["seeds"], row["ids"]) == (N, N)
    report = check_store(store)
    assert report.sound
    assert report.repeated == {}


def test_429_500_and_nonsense_are_waited_out_and_every_sample_is_stored_once(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        trouble = [
            says(429, "slow down", {"Retry-After": "0"}), says(500, "oops"), says(200, "<html>not json"),
            says(200, {"choices": []}), gives(3), says(503, "starting"),
        ]  # fmt: skip
        async with serving(*trouble) as endpoint:
            code, out, err = await sample(home, endpoint, questions(tmp_path, 20))
            assert code == 0, err
            figures = json.loads(out)
            assert (figures["sampled"], figures["stored_before"], figures["unparsed"]) == (100, 0, 0)
            assert figures["prompt_tokens"] == 21 * 11  # once a request; one question took two, for 3 and 2 samples
            assert len(endpoint.bodies) == 20 + len(trouble)
            # The second run asks for nothing.
            code, out, err = await sample(home, endpoint, questions(tmp_path, 20))
            assert (code, json.loads(out)["sampled"]) == (0, 0)
            assert len(endpoint.bodies) == 20 + len(trouble)

    asyncio.run(scenario())
    assert_every_sample_once(home, 20)


def test_more_samples_later_ask_only_for_the_new_ones(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        async with serving() as endpoint:
            await sample(home, endpoint, questions(tmp_path, 4), "--n", 3)
            code, out, _ = await sample(home, endpoint, questions(tmp_path, 4))
            assert (code, json.loads(out)["sampled"]) == (0, 8)
            assert Counter(body["n"] for body in endpoint.bodies) == {3: 4, 2: 4}
            # another run seed, temperature or model is another sample
            await sample(home, endpoint, questions(tmp_path, 4), "--seed", 1)
            await sample(home, endpoint, questions(tmp_path, 4), "--temperature", 1.0)
            assert Counter(body["n"] for body in endpoint.bodies) == {3: 4, 2: 4, 5: 8}
            seeds = [body["seed"] + i for body in endpoint.bodies[:12] for i in range(body["n"])]
            assert len(set(seeds)) == len(seeds)

    asyncio.run(scenario())


def test_an_endpoint_that_stays_too_late_ends_in_one_line_and_keeps_what_came(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        async with serving(*[too_late] * 400) as endpoint:
            # the first ten are answered, the rest never
            endpoint.script[:0] = [gives(N)] * 10
            code, _, err = await sample(
                home, endpoint, questions(tmp_path, 20), "--in-flight", 1, "--timeout", 0.5, "--retries", 0
            )
            assert code == 2
            assert err.strip().splitlines()[-1].startswith(f"qcrd: {endpoint.url} failed 1 times in a row for request ")
            assert "no reply within 0.5 s" in err
            assert "Traceback" not in err
            assert len(Store(home / "store").query("SELECT * FROM rationales")) == 10 * N
            endpoint.script.clear()
            code, out, err = await sample(home, endpoint, questions(tmp_path, 20))
            assert (code, json.loads(out)["sampled"]) == (0, 10 * N), err

    asyncio.run(scenario())
    assert_every_sample_once(home, 20)


def test_a_refused_key_is_one_line_without_the_key_and_the_key_is_stored_nowhere(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        refusal = says(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})
        async with serving(refusal) as endpoint:
            endpoint.models = []
            file = questions(tmp_path, 3)
            code, out, err = await sample(home, endpoint, file, "--in-flight", 1, QCRD_TEACHER_API_KEY=KEY)
            assert code == 2
            assert KEY not in out + err
            assert "QCRD_TEACHER_API_KEY" in err.splitlines()[-1]
            code, out, err = await sample(home, endpoint, file, QCRD_TEACHER_API_KEY=KEY)
            assert code == 0
            assert KEY not in out + err
            assert endpoint.keys[-1] == f"Bearer {KEY}"

    asyncio.run(scenario())
    for path in home.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def test_a_question_the_endpoint_refuses_is_named_and_the_others_go_on(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        refusal = says(400, {"error": {"message": "This model's maximum context length is 512 tokens."}})
        async with serving(refusal) as endpoint:
            code, out, err = await sample(home, endpoint, questions(tmp_path, 5))
            assert code == 0, err
            figures = json.loads(out)
            assert figures["sampled"] == 4 * N
            [reason] = figures["refused"].values()
            assert "512 tokens" in reason

    asyncio.run(scenario())


def test_other_fields_of_the_body_are_other_samples_but_a_field_left_out_is_not(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        async with serving() as endpoint:
            file, sampled = questions(tmp_path, 2), []
            for options in (
                (), ("--reasoning-effort", "low"), ("--extra-body", '{"reasoning_effort": "low"}'),
                ("--extra-body", '{"seed": null, "n": null}'), ("--instruction", "user"),
            ):  # fmt: skip
                code, out, err = await sample(home, endpoint, file, *options)
                assert code == 0, err
                sampled.append(json.loads(out)["sampled"])
            assert sampled == [2 * N, 2 * N, 0, 0, 0]
            assert [body.get("reasoning_effort") for body in endpoint.bodies] == [None] * 2 + ["low"] * 2

    asyncio.run(scenario())


def test_what_an_endpoint_does_not_tell_is_unknown(tmp_path: Path, home: Path) -> None:
    def silent(body: dict[str, Any]) -> web.Response:
        return web.json_response(good(body) | {"usage": None})

    async def scenario() -> None:
        async with serving(habit=silent) as endpoint:
            code, out, err = await sample(home, endpoint, questions(tmp_path, 2), "--price-prompt", 1)
            assert code == 0, err
            figures = json.loads(out)
            told = ("prompt_tokens", "completion_tokens", "tokens_per_s", "cost")
            assert [figures[name] for name in told] == [None] * 4
            command = qcrd_command(
                home, "sample", "--dataset", "svamp", "--path", questions(tmp_path, 3), "--url", endpoint.url,
                "--model", "lab", "--api", "completions", "--price-prompt", 1,
            )  # fmt: skip
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            text = (await process.communicate())[0].decode()
            assert "Tokens: unknown, in " in text
            assert "Cost: unknown." in text

    asyncio.run(scenario())


def odd_replies() -> list[Any]:
    """Replies that real endpoints send: half a character, fields of other kinds than promised."""

    def changed(change: Callable[[dict[str, Any]], None]) -> Any:
        async def answer(_: Endpoint, body: dict[str, Any]) -> web.StreamResponse:
            reply = good(body)
            change(reply)
            return web.Response(text=json.dumps(reply), content_type="application/json")

        return answer

    return [
        changed(lambda reply: reply["choices"][0].update(text="half a \ud800 character. So the answer is 4.")),
        changed(lambda reply: reply["choices"][0].update(finish_reason={"kind": "stop"})),
        changed(lambda reply: reply["usage"].update(prompt_tokens=2**40)),
        changed(lambda reply: reply["usage"].update(completion_tokens=True)),
        says(200, "[" * 100_000),
    ]


def test_odd_replies_cost_no_sample(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        async with serving(*odd_replies()) as endpoint:
            code, out, err = await sample(home, endpoint, questions(tmp_path, 10))
            assert code == 0, err
            assert json.loads(out)["sampled"] == 10 * N

    asyncio.run(scenario())
    assert_every_sample_once(home, 10)
    texts = Store(home / "store").query("SELECT text FROM rationales WHERE answer = '4'")["text"].to_pylist()
    assert texts == ["half a \ufffd character. So the answer is 4."]


def test_a_full_disk_ends_the_sampling_and_the_next_run_goes_on(tmp_path: Path, home: Path) -> None:
    """The kernel refuses the write: a limit on the size of files, set for the sampler alone."""
    small = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    small += "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); from flows.cli import main; main()"

    async def scenario() -> None:
        async with serving() as endpoint:
            file = questions(tmp_path, 8)
            await sample(home, endpoint, file, "--limit", 2)
            before = len(Store(home / "store").query("SELECT * FROM rationales"))
            command = qcrd_command(
                home, "sample", "--dataset", "svamp", "--path", questions(tmp_path, 900), "--url", endpoint.url,
                "--model", "lab", "--api", "completions", "--n", N,
            )  # fmt: skip
            command[2] = small
            process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
            _, err = await process.communicate()
            assert process.returncode == 2, err
            last = err.decode().strip().splitlines()[-1]
            assert last.startswith(f"qcrd: Cannot write to the store at {home}/store: File too large.")
            assert "it continues where it stopped" in last
            assert len(Store(home / "store").query("SELECT * FROM rationales")) == before
            code, _, err_text = await sample(home, endpoint, questions(tmp_path, 8))
            assert code == 0, err_text

    asyncio.run(scenario())
    assert_every_sample_once(home, 8)


def test_two_at_once_ask_for_every_sample_once(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        async with serving() as endpoint:
            file = questions(tmp_path, 60)
            both = await asyncio.gather(*(sample(home, endpoint, file) for _ in range(2)))
            assert [code for code, _, _ in both] == [0, 0], both
            assert sorted(json.loads(out)["sampled"] for _, out, _ in both) == [0, 60 * N]
            assert len(endpoint.bodies) == 60

    asyncio.run(scenario())
    assert_every_sample_once(home, 60)


@pytest.mark.parametrize("ignored", [False, True], ids=["", "in the background of a script"])
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal_it_stores_what_came_and_says_so(
    tmp_path: Path, home: Path, number: signal.Signals, expected: int, ignored: bool
) -> None:
    """A shell without job control starts `qcrd sample ... &` with SIGINT ignored; it must be stoppable all the same."""
    if ignored:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # what a child inherits

    async def scenario() -> None:
        answered = asyncio.Event()

        async def last(_: Endpoint, body: dict[str, Any]) -> web.StreamResponse:
            answered.set()
            return web.json_response(good(body))

        async with serving(*[gives(N)] * 7, last, *[too_late] * 64) as endpoint:
            async with sampling(home, endpoint, questions(tmp_path, 30), "--in-flight", 1, cold=ignored) as process:
                await answered.wait()
                while len(endpoint.bodies) < 9:  # the ninth request proves that the eighth reply was received
                    await asyncio.sleep(0.01)
                process.send_signal(number)
                code, _, err = await process.to_the_end()
            assert code == expected
            assert err.strip().splitlines()[-1] == (
                "qcrd: Stopped. What was finished is stored; run the same command again to go on."
            )
            assert len(Store(home / "store").query("SELECT * FROM rationales")) == 8 * N

    try:
        asyncio.run(scenario())
    finally:
        if ignored:
            signal.signal(signal.SIGINT, before)


def test_a_run_of_days_does_not_leave_a_part_file_a_second() -> None:
    assert store_pause(0.0) == store_pause(160.0) < 1  # as long as that is most of what has been asked
    elapsed, parts = 0.0, 0
    while elapsed < 10 * 3600:
        pause = store_pause(elapsed)
        assert pause <= max(STORE_EVERY_S, elapsed / 200) + 1e-9
        elapsed, parts = elapsed + pause, parts + 1
    assert parts < 1500
