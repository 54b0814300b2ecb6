"""Has a teacher write variants of training questions: `rephrased` with the same answer, `changed` with another one.

Every reply is a row of `variants` within seconds. Its id follows from what was asked, so a second run asks only for
what is missing. What a reply becomes is decided anew in every run, in the order of the ids: a question of the split of
its kind (`variants_split`), unless it is unreadable, is or is nearly a validation or test question, repeats a training
question, or is nearly another variant of its kind.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.seeds import request_seed
from models.teacher import RequestRefused, TeacherKey, TeacherReply, TeacherRequest
from storage.datasets.definition import Dataset, Example
from storage.datasets.variants import VariantKind, read_variant, variant_prompt
from storage.ids import content_id, example_id, prompt_hash
from storage.schemas import VARIANTS
from storage.store import Store, now
from storage.thoughts import split_thought
from tasks.questions.leaks import Known, words_id
from tasks.teacher.receiving import receive
from tasks.teacher.session import TeacherChoice, endpoint

VARIANT_OF, VARIANT_KIND, PROMPT_HASH, VARIANT_ID = "variant_of", "variant_kind", "prompt_hash", "variant_id"
"""Keys of an example's `extra`: its source's example_id, its kind, the prompt it is from, its row in `variants`."""


@dataclass(frozen=True)
class Source:
    """A training question, of which variants are written."""

    example_id: str
    question: str
    choices: tuple[str, ...]
    label: str | None


@dataclass(frozen=True)
class _Asked:
    """One request, with the row that its reply becomes."""

    request: TeacherRequest
    source: Source
    row: dict[str, Any]


def write_variants(
    store: Store,
    partition: dict[str, str],
    sources: Sequence[Source],
    kinds: dict[VariantKind, int],
    teacher: TeacherChoice,
    seed: int,
    logs: Path,
    notice: Callable[[str], None],
    run_id: str | None = None,
    key: TeacherKey | None = None,
) -> int:
    """Asks for what is missing; returns how many replies that brought.

    Args:
        partition: dataset and split of the sources.
        kinds: kind -> variants of each source.
        teacher: whom to ask.
        seed: another one gives other variants.
        logs: folder for a server's log.
        notice: called with sentences that say what is going on.
        key: the endpoint's key; None takes it from the environment.

    Raises:
        ServerFailed, TeacherFailed, TeacherUnavailable: from the teacher.
        StoreWriteFailed: from the store.
    """
    asked = {
        one.request.request_id: one
        for source in sources
        for kind, count in kinds.items()
        for index in range(count)
        for one in [_asked(teacher, partition, source, kind, index, seed, run_id)]
    }
    with store.lock(f"variants {partition['dataset']}/{partition['split']} {teacher.identity.model}"):
        known = set(_stored(store, partition, asked)["variant_id"].to_pylist())
        missing = {one: what for one, what in asked.items() if one not in known}
        if not missing:
            return 0
        notice(f"{len(missing):,} variants to be written; {len(known):,} are stored already.")
        return _ask(store, missing, teacher, logs, notice, key)


def _asked(
    teacher: TeacherChoice,
    partition: dict[str, str],
    source: Source,
    kind: VariantKind,
    index: int,
    seed: int,
    run_id: str | None,
) -> _Asked:
    prompt, sampling = variant_prompt(kind, source.question, source.choices), teacher.sampling
    messages, stop = prompt.messages(), prompt.stop if sampling.api == "completions" else ()
    hashed = prompt_hash([sampling.api, messages if sampling.api == "chat" else prompt.plain, stop])
    identity = [source.example_id, teacher.identity.model, teacher.identity.revision, hashed, sampling.temperature,
                sampling.top_p, sampling.max_tokens, sampling.extra_body, seed]  # fmt: skip
    key = content_id("variant", *identity, index)
    row = {
        "variant_id": key, "example_id": source.example_id, **partition, "kind": kind, "variant_index": index,
        "model": teacher.identity.model, "model_revision": teacher.identity.revision, "prompt_hash": hashed,
        "run_id": run_id,
    }  # fmt: skip
    at = request_seed(f"{source.example_id}/{kind}", seed, index)
    return _Asked(TeacherRequest(key, prompt.plain, messages, stop, 1, at), source, row)


def _stored(store: Store, partition: dict[str, str], ids: Iterable[str]) -> pa.Table:
    with store.connect() as con:
        con.register("wanted", pa.table({"variant_id": pa.array(list(ids), "string")}))
        return store.execute(
            con, f"SELECT * FROM {store.relation(VARIANTS, partition)} SEMI JOIN wanted USING (variant_id)"
        )


def _ask(
    store: Store,
    missing: dict[str, _Asked],
    teacher: TeacherChoice,
    logs: Path,
    notice: Callable[[str], None],
    key: TeacherKey | None,
) -> int:
    refused: set[str] = set()
    stored = 0

    def store_replies(replies: list[TeacherReply], _: float) -> None:
        nonlocal stored
        rows = []
        for reply in replies:
            asked, [sample] = missing[reply.request_id], reply.samples
            final = (split_thought(sample.text).final if sample.thought is None else sample.text) or ""
            cut = sample.finish_reason == "length"
            rows.append(
                {**asked.row, "text": sample.text,
                 "question": None if cut else read_variant(final, asked.source.question),
                 "prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens,
                 "created_at": now()}
            )  # fmt: skip
        store.append(VARIANTS, pa.Table.from_pylist(rows, VARIANTS.schema))
        stored += len(rows)

    def on_refused(error: RequestRefused) -> None:
        if not refused:
            notice(f"The teacher refused to write a variant: {error}")
        refused.add(error.request_id)

    with endpoint(teacher, logs, notice) as (config, recover):
        receive(
            [one.request for one in missing.values()], store_replies, config,
            teacher.sampling.model_copy(update={"n": 1}), on_refused=on_refused, notice=notice, recover=recover,
            key=key,
        )  # fmt: skip
    return stored


def variants_split(split: str, kind: VariantKind) -> str:
    """The split that has a split's variants of a kind."""
    return f"{split}-{kind}"


@dataclass(frozen=True)
class Sorted:
    """What became of the stored variants of a kind.

    Attributes:
        examples: the questions.
        refused: reason -> how many were refused for it.
    """

    examples: dict[str, Example]
    refused: Counter[str]


def sorted_variants(
    store: Store,
    dataset: Dataset,
    partition: dict[str, str],
    kind: VariantKind,
    count: int,
    sources: Sequence[Source],
    trained: Iterable[str],
    kept_out: Iterable[str],
    overlap: float,
) -> Sorted:
    """Decides which stored variants become questions.

    Args:
        partition: dataset and split of the sources.
        count: the first so many of each source.
        sources: those whose variants are wanted.
        trained: all training questions.
        kept_out: all validation and test questions.
        overlap: as in `Known`.
    """
    by_id = {source.example_id: source for source in sources}
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT * FROM {store.relation(VARIANTS, partition)} WHERE kind = $1 AND variant_index < $2 "
            "ORDER BY variant_id",
            [kind, count],
        ).to_pylist()
    protected, among = Known(kept_out, overlap), Known((), overlap)
    training = {words_id(text) for text in trained}
    examples: dict[str, Example] = {}
    refused: Counter[str] = Counter()
    split = variants_split(partition["split"], kind)
    for row in rows:
        source, text = by_id.get(row["example_id"]), row["question"]
        if source is None:
            continue
        if text is None:
            refused["unreadable"] += 1
        elif protected.near(text):
            refused["like a validation or test question"] += 1
        elif words_id(text) in training:
            refused["a training question already"] += 1
        elif among.near(text):
            refused["like another variant"] += 1
        else:
            among.add(text)
            extra = {VARIANT_OF: source.example_id, VARIANT_KIND: kind, PROMPT_HASH: row["prompt_hash"],
                     VARIANT_ID: row["variant_id"]}  # fmt: skip
            label = source.label if kind == "rephrased" else None
            key = example_id(dataset.name, split, text, source.choices)
            examples[key] = Example(text, source.choices, label, extra)
    return Sorted(examples, refused)
