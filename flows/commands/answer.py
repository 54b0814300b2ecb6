"""`qcrd answer`: the champion before the teacher, at a terminal or as a web service."""

import asyncio
import logging
import math
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.distill import ConfigArgument, SetOption
from flows.commands.options import DEFAULT_HOME, HomeOption, JsonOption, home_at
from flows.commands.predict import check_choices, questions_of
from flows.home import Home
from flows.prefect.servers import LOOPBACK
from flows.terminal import notice, out, plain, print_json
from storage.datasets.definition import Dataset
from storage.datasets.registry import get_dataset
from storage.errors import UsageError

if TYPE_CHECKING:
    from flows.config.distill import DistillConfig
    from tasks.cascade.cascade import Given
    from tasks.cascade.champion import Champion
    from tasks.cascade.desk import Desk
    from tasks.serving.settings import Question

KEY_VARIABLE = "QCRD_ANSWER_API_KEY"
TOLD_EVERY_S = 10.0
"""Seconds between two lines about how many of a file's questions are done."""


def answer_command(
    config: ConfigArgument,
    questions: Annotated[
        list[str] | None, typer.Argument(help="Questions; - reads one per line from standard input.")
    ] = None,
    path: Annotated[
        str | None, typer.Option("--path", help="A file with the questions, in the columns of the dataset's files.")
    ] = None,
    choice: Annotated[
        list[str] | None, typer.Option("--choice", help="An answer choice, for datasets that have some. Repeatable.")
    ] = None,
    settings: SetOption = None,
    serve: Annotated[bool, typer.Option("--serve", help="Answer over HTTP, until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option("--port", help="Port of the service.", min=1, max=65535)] = 8300,
    host: Annotated[
        str,
        typer.Option("--host", help=f"Address to listen on; any but this machine's own needs a key in {KEY_VARIABLE}."),
    ] = LOOPBACK,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Let the champion answer, and the teacher where it is not sure.

    The configuration is the one that the champion is distilled with. What is
    passed on to the teacher is stored with its votes, and the next run of the
    same configuration trains on it, too.

    Example: qcrd answer lab --set cascade.below=0.9 "Ann has 3 apples and buys 2 more. How many has she now?"
    Example: qcrd answer lab --path today.jsonl --json
    Example: qcrd answer lab --serve
    """
    from flows.config.distill import load_config

    if bool(questions) + bool(path) + serve != 1:
        raise UsageError(
            'Give one of the three: questions, such as qcrd answer lab "How many ...?", a file with --path, or --serve.'
        )
    loaded = load_config(config, settings or [])
    if loaded.teacher.source != "sample":
        raise UsageError(
            f"teacher.source is {loaded.teacher.source}, and nobody can be asked there: name a teacher with --set "
            "teacher.source=sample --set teacher.model=NAME --set teacher.url=URL."
        )
    if loaded.cascade.cost_a_day is not None:
        if loaded.teacher.price.of(1, 1) is None:
            raise UsageError("cascade.cost_a_day needs prices: set teacher.price.per_million_completion and its like.")
        if not loaded.teacher.bounded:
            raise UsageError(
                "cascade.cost_a_day goes by teacher.max_tokens: leave max_tokens and max_completion_tokens out of "
                "teacher.extra_body."
            )
    dataset, place = get_dataset(loaded.dataset.name), home_at(home)
    if not serve:
        from tasks.serving.settings import Question

        rows = questions_of(questions or [], path, choice or [], loaded.dataset.name if path else None)
        check_choices(dataset, rows)
        asked = [Question(row["question"], tuple(row.get("choices", ()))) for row in rows]
        given = _answers(place, loaded, dataset, asked)
        if as_json:
            print_json([one.model_dump() for one in given])
            return
        for question, one in zip(asked, given, strict=True):
            _show(question.question, one)
        counts = Counter(one.by for one in given)
        notice(
            f"{counts['student']:,} of {len(given):,} questions answered by the student, {counts['teacher']:,} by the "
            f"teacher, {counts['nobody']:,} by nobody."
        )
        return
    key = os.environ.get(KEY_VARIABLE) or None
    if key is not None and not re.fullmatch("[!-~]+", key):
        raise UsageError(
            f"The key in {KEY_VARIABLE} has other characters than a request may carry: make one of printable ASCII "
            "without spaces, such as with openssl rand -hex 32."
        )
    if key is None and host not in (LOOPBACK, "localhost", "::1"):
        raise UsageError(
            f"{host} can be reached by others: put a key for them into {KEY_VARIABLE}, or leave out --host."
        )
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"Port {port} of {host} cannot be used ({error.strerror}); name another one with --port."
            ) from error
        champion = _champion(place, loaded, dataset)
        with _desk(place, loaded, dataset) as desk:
            asyncio.run(_serve(champion, desk, dataset, key, bound, math.ceil(loaded.cascade.wait_s)))


def _answers(home: Home, config: "DistillConfig", dataset: Dataset, questions: "list[Question]") -> "list[Given]":
    """The answers here and now. The teacher is made ready, which may be a server that takes its time to start, only if
    the champion abstains from a question."""
    from tasks.cascade.cascade import by_student, by_teacher

    guesses = _champion(home, config, dataset).guesses(questions)
    given = {place: by_student(guess) for place, guess in enumerate(guesses) if not guess.abstains}
    left = [place for place in range(len(questions)) if place not in given]
    last = time.monotonic()

    async def ask(desk: "Desk", place: int) -> None:
        nonlocal last
        given[place] = await by_teacher(desk, questions[place], guesses[place], patient=True)
        if time.monotonic() - last >= TOLD_EVERY_S:
            last = time.monotonic()
            notice(f"{len(given):,} of {len(questions):,} questions are done; the teacher is asked the others.")

    async def ask_all(desk: "Desk") -> None:
        async with desk:
            await asyncio.gather(*(ask(desk, place) for place in left))

    if left:
        with _desk(home, config, dataset) as desk:
            asyncio.run(ask_all(desk))
    return [given[place] for place in range(len(questions))]


async def _serve(
    champion: "Champion", desk: "Desk", dataset: Dataset, key: str | None, bound: socket.socket, grace_s: int
) -> None:
    import uvicorn

    from tasks.cascade.cascade import Cascade
    from tasks.cascade.service import make_app

    app = make_app(Cascade(champion, desk), dataset, key)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level=logging.WARNING, access_log=False, timeout_graceful_shutdown=grace_s)
    )
    async with champion, desk:  # before the server, so that what is wrong with them is one line
        host, port = bound.getsockname()[:2]
        out.print(plain(f"http://{f'[{host}]' if ':' in host else host}:{port}/answer"), soft_wrap=True)
        registered, left = champion.registered, desk.left
        notice(
            f"{registered.name} version {registered.version} answers; the teacher may be asked "
            f"{'any number of' if left is None else f'{left:,}'} questions today. Ctrl-C ends it."
        )
        await server.serve([bound])


def _champion(home: Home, config: "DistillConfig", dataset: Dataset) -> "Champion":
    """The champion, loaded.

    Raises:
        UnknownName: there is none.
        UsageError: nothing says when it abstains.
    """
    from tasks.cascade.champion import Champion
    from tasks.tracking.packaging import model_name

    return Champion(home.path, config.registry.name or model_name(dataset.name), config.cascade, notice)


@contextmanager
def _desk(home: Home, config: "DistillConfig", dataset: Dataset) -> "Iterator[Desk]":
    """The teacher's desk; a server of the teacher's own runs during the block.

    Raises:
        UsageError: another process passes questions on to this teacher.
    """
    from tasks.cascade.desk import Desk
    from tasks.questions.sets import PASSED_ON
    from tasks.teacher.key import key_of
    from tasks.teacher.session import choose_teacher, endpoint

    teacher, store = choose_teacher(config.teacher, home.path), home.open_store()
    key = key_of(config.teacher.key_secret) if config.teacher.key_secret else None
    with store.lock(f"sample {dataset.name}/{PASSED_ON} {teacher.identity.model}", wait=False) as held:
        if not held:
            raise UsageError("Another process passes questions on to this teacher; ask that `qcrd answer`, or end it.")
        with endpoint(teacher, home.logs, notice) as (address, recover):
            yield Desk(
                store, dataset, config.votes, config.cascade, config.teacher, teacher, address, notice, recover, key
            )


def _show(question: str, given: "Given") -> None:
    """One answer, as `qcrd predict` shows it."""
    out.print(plain(question))
    out.print(plain(f"  answer:    {given.answer if given.answer is not None else '-'}"))
    if given.rationale is not None:
        out.print(plain(f"  rationale: {given.rationale}"))
    if given.confidence is not None:
        out.print(plain(f"  sure:      {given.confidence:.0%}"))
    share = "" if given.share is None else f", {given.share:.0%} of its votes"
    who = {"student": "the student", "teacher": f"the teacher{share}", "nobody": f"nobody: {given.why}"}
    out.print(plain(f"  from:      {who[given.by]}"), soft_wrap=True)
