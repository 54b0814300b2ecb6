"""Asks a judge which of two students' rationales is better, for some questions and in both orders.

Every reply is a row of `judgements` within seconds. Its id follows from the judge and from what it was asked, so a
second run asks only for what is missing, and another training that wrote the same texts costs nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.seeds import request_seed
from models.teacher import RequestRefused, SamplingConfig, TeacherKey, TeacherReply, TeacherRequest
from storage.ids import content_id, prompt_hash
from storage.schemas import EXAMPLES, JUDGEMENTS, PREDICTIONS
from storage.store import Store, now
from storage.thoughts import split_thought
from tasks.comparing.preferences import Preferences, Preferred, added_up, judge_prompt, read_verdict
from tasks.teacher.receiving import receive
from tasks.teacher.session import TeacherChoice, endpoint

ORDERS = ("first", "second")
"""Where the first student's rationale is shown."""


@dataclass(frozen=True)
class Pair:
    """A question, and the names of the two students (in `predictions`) whose rationales of it are compared."""

    example_id: str
    student: str
    other: str


@dataclass(frozen=True)
class _Asked:
    """One request to the judge, with the row that its reply becomes."""

    request: TeacherRequest
    row: dict[str, Any]


def judge_pairs(
    store: Store,
    partition: dict[str, str],
    pairs: Sequence[Pair],
    judge: TeacherChoice,
    logs: Path,
    notice: Callable[[str], None],
    run_id: str | None = None,
    key: TeacherKey | None = None,
) -> Preferences:
    """How often the rationales of each pair's first student are preferred.

    Args:
        partition: dataset and split of the questions.
        pairs: each question once; both students have a rationale of it.
        judge: whom to ask.
        logs: folder for a server's log.
        notice: called with sentences that say what is going on.
        key: the endpoint's key; None takes it from the environment.

    Raises:
        ServerFailed, TeacherFailed, TeacherUnavailable: from the judge.
        StoreWriteFailed: from the store.
    """
    texts = _texts(store, partition, pairs)
    different = [pair for pair in pairs if texts[pair][0] != texts[pair][1]]
    asked = {
        (pair, order): _asked(judge, partition, pair, order, *texts[pair], run_id)
        for pair in different
        for order in ORDERS
    }
    refused: set[str] = set()
    with store.lock(f"judge {partition['dataset']}/{partition['split']} {judge.identity.model}"):
        known = _stored(store, partition, asked.values())
        missing = {one.request.request_id: one for one in asked.values() if one.request.request_id not in known}
        if missing:
            notice(f"{len(missing):,} judgements to make; {len(asked) - len(missing):,} are stored already.")
            refused = _ask(store, missing, judge, logs, notice, key)
            known = _stored(store, partition, asked.values())
    answered = [
        (known[first], known[second])
        for first, second in ([asked[pair, order].request.request_id for order in ORDERS] for pair in different)
        if not refused & {first, second}
    ]
    return added_up(answered, same=len(pairs) - len(different), refused=len(different) - len(answered))


def _texts(
    store: Store, partition: dict[str, str], pairs: Sequence[Pair]
) -> dict[Pair, tuple[str, str, str, tuple[str, ...]]]:
    """Of each pair both rationales without the space around them, the question and its choices."""
    wanted = {"example_id": [pair.example_id for pair in pairs], "student": [pair.student for pair in pairs],
              "other": [pair.other for pair in pairs]}  # fmt: skip
    with store.connect() as con:
        con.register("wanted", pa.table(wanted))
        predictions = store.relation(PREDICTIONS, partition)
        rows = store.execute(
            con,
            f"SELECT w.*, one.rationale AS own, two.rationale AS others, e.question, e.choices FROM wanted w "
            f"JOIN {predictions} one ON one.example_id = w.example_id AND one.model = w.student "
            f"JOIN {predictions} two ON two.example_id = w.example_id AND two.model = w.other "
            f"JOIN {store.relation(EXAMPLES, partition)} e ON e.example_id = w.example_id",
        ).to_pylist()
    return {
        Pair(row["example_id"], row["student"], row["other"]): (
            row["own"].strip(), row["others"].strip(), row["question"], tuple(row["choices"]),
        )
        for row in rows
    }  # fmt: skip


def _asked(
    judge: TeacherChoice,
    partition: dict[str, str],
    pair: Pair,
    order: str,
    own: str,
    others: str,
    question: str,
    choices: tuple[str, ...],
    run_id: str | None,
) -> _Asked:
    first, second = (own, others) if order == "first" else (others, own)
    prompt, sampling = judge_prompt(question, choices, first, second), judge.sampling
    messages, stop = prompt.messages(), prompt.stop if sampling.api == "completions" else ()
    hashed = prompt_hash([sampling.api, messages if sampling.api == "chat" else prompt.plain, stop])
    identity = [pair.example_id, judge.identity.model, judge.identity.revision, hashed, sampling.temperature,
                sampling.top_p, sampling.max_tokens]  # fmt: skip
    key = content_id("judgement", *identity)
    seed = request_seed(pair.example_id, 0, 0)
    row = {
        "judgement_id": key, "example_id": pair.example_id, **partition, "judge": judge.identity.model,
        "judge_revision": judge.identity.revision, "first": first, "second": second, "prompt_hash": hashed,
        "run_id": run_id,
    }  # fmt: skip
    return _Asked(TeacherRequest(key, prompt.plain, messages, stop, 1, seed), row)


def _stored(store: Store, partition: dict[str, str], asked: Iterable[_Asked]) -> dict[str, Preferred | None]:
    """judgement_id -> what was preferred, of those that are stored."""
    with store.connect() as con:
        con.register(
            "wanted", pa.table({"judgement_id": pa.array([one.request.request_id for one in asked], "string")})
        )
        rows = store.execute(
            con,
            f"SELECT judgement_id, preferred FROM {store.relation(JUDGEMENTS, partition)} "
            "SEMI JOIN wanted USING (judgement_id)",
        )
    return dict(zip(rows["judgement_id"].to_pylist(), rows["preferred"].to_pylist(), strict=True))


def _ask(
    store: Store,
    missing: dict[str, _Asked],
    judge: TeacherChoice,
    logs: Path,
    notice: Callable[[str], None],
    key: TeacherKey | None,
) -> set[str]:
    """Makes the missing judgements; returns the ids of those that the endpoint refused."""
    refused: set[str] = set()

    def store_replies(replies: list[TeacherReply], _: float) -> None:
        rows = [
            {**missing[reply.request_id].row, "text": reply.samples[0].text,
             "preferred": read_verdict(split_thought(reply.samples[0].text).final or ""),
             "prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens, "created_at": now()}
            for reply in replies
        ]  # fmt: skip
        store.append(JUDGEMENTS, pa.Table.from_pylist(rows, JUDGEMENTS.schema))

    def on_refused(error: RequestRefused) -> None:
        if not refused:
            notice(f"The judge refused a question: {error}")
        refused.add(error.request_id)

    with endpoint(judge, logs, notice) as (config, recover):
        requests = [one.request for one in missing.values()]
        sampling: SamplingConfig = judge.sampling
        receive(
            requests, store_replies, config, sampling, on_refused=on_refused, notice=notice, recover=recover, key=key
        )
    return refused
