"""Self-consistency votes (docs/distillation.md; Wang et al. 2023, arXiv 2203.11171), as SQL over the rationales.

The answer with the most votes of an example wins. Every parsed sample has one, but for those with wrong arithmetic
under `check_arithmetic`. Ties go to the highest mean log-probability, then to the lowest sample index, and are recorded
as ties. Where answers are sets of labels, each label is voted on by itself: those in more than half of the votes make
the winner. That may be no sample's own answer, and then nothing is a positive. Equal rationale texts are one target,
with the number of times it was sampled.

`storage.vote_sql` has the SQL. It holds a row per distinct text, so it runs on about a million samples at a time. Where
there are more, one pass over the store sorts what it needs into temporary files by a hash of the example; then the
files are voted on one by one. So memory is constant, and time linear in the samples.

    vote(store, dataset, rule)                          in this process
    vote_on_split(store, dataset, rule, split, shard)   the questions of one shard, as one of several machines does it
"""

import json
import math
from collections.abc import Sequence
from contextlib import nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from duckdb.func import PythonUDFType
from pydantic import BaseModel, ConfigDict, Field

from storage.columns import no_rows
from storage.datasets.arithmetic_steps import miscalculates
from storage.datasets.definition import LABEL_SETS, Dataset
from storage.errors import NothingToDo, UnknownName
from storage.files import folder_value
from storage.ids import content_id
from storage.schemas import EXAMPLES, RATIONALES, VOTES
from storage.shards import Shard
from storage.spooled import Spooled
from storage.store import Store, now
from storage.vote_sql import Positives, vote_sql
from storage.vote_summary import VoteSummary, VoteSums, summary_of, vote_sums

SAMPLES_AT_ONCE = 1_250_000
"""About how many samples are voted on at a time."""
MEMORY_LIMIT = "1200MB"
"""DuckDB's limit while voting; beyond it, DuckDB uses the disk."""


class VotesConfig(BaseModel):
    """Self-consistency votes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int | None = Field(
        default=None, ge=1, description="Samples per question that vote, drawn at random; all by default."
    )
    seed: int = Field(default=0, description="Seed of that draw; without effect where all samples vote.")
    positives: Positives = Field(
        default="majority",
        description="Which samples are positives: those with the `majority` answer (paper), with the `gold` label, or "
        "with both (`majority-and-gold`).",
    )
    check_arithmetic: bool = Field(
        default=False,
        description="Whether a rationale that writes a wrong calculation, such as 12 - 5 = 8, is no vote and no "
        "positive. One with another answer than the winner's is a negative as before.",
    )


class VoteRule(VotesConfig):
    """Which samples vote and what counts as a positive. Its content gives the `vote_id`.

    Negatives are the other parsed samples; if the gold label decides what is a positive, only those that differ from
    it. An example without a gold label then gets no targets.

    Attributes:
        dataset: the dataset's name.
        teachers: globs over the rationales' `model` column; a sample takes part if any matches.
    """

    dataset: str
    teachers: tuple[str, ...] = ("*",)

    def content(self) -> dict[str, Any]:
        """The rule in canonical form: rules that always choose the same samples have equal contents."""
        rule = self.model_dump()
        rule["teachers"] = sorted(set(self.teachers))
        if self.n is None:
            rule["seed"] = 0  # no effect
        if not self.check_arithmetic:
            del rule["check_arithmetic"]  # as in stores that are older than it
        return rule

    @property
    def vote_id(self) -> str:
        """The id under which the rule's votes are stored: a hash of its content."""
        return content_id("vote", self.content())


def vote(store: Store, dataset: Dataset, rule: VoteRule, split: str | None = None) -> VoteSummary:
    """Votes on every split (or one) of a dataset and stores a row per example.

    Voting again by the same rule stores only what has changed.

    Raises:
        UnknownName: no rationale of that split is stored.
        NothingToDo: the rule selects no stored sample.
        DamagedPart: a part file cannot be read.
    """
    splits = splits_to_vote_on(store, dataset, split)
    sums = VoteSums()
    for name in splits:
        sums.update(vote_on_split(store, dataset, rule, name))
    return summarised(store, dataset, rule, splits, sums)


def splits_to_vote_on(store: Store, dataset: Dataset, split: str | None = None) -> list[str]:
    """All splits of a dataset that have rationales, or just the one. Raises what `vote` raises."""
    stored = stored_splits(store, dataset.name)
    if not stored:
        raise NothingToDo(
            f"Nothing to vote on: no rationales of {dataset.name!r} are stored at {store.files.given}. "
            "Sample some with `qcrd sample` or bring some with `qcrd import`."
        )
    if split is not None and split not in stored:
        raise UnknownName("split", split, stored, f"Rationales of {dataset.name!r} are stored for these.")
    return [split] if split is not None else stored


def vote_on_split(
    store: Store,
    dataset: Dataset,
    rule: VoteRule,
    split: str,
    shard: Shard | None = None,
    among: Sequence[str] | None = None,
) -> VoteSums:
    """Votes on a split, on a shard of its questions, or on some of them, and stores a row per example.

    Args:
        shard: only the questions in it.
        among: or ids of the only ones, a few.

    Returns:
        What `summarised` takes; those of all shards add up to those of the split.

    Raises:
        DamagedPart: a part file cannot be read.
    """
    split_right, partition = f"votes {dataset.name}/{split}", {"dataset": dataset.name, "split": split}
    what = split_right if shard is None else f"{split_right} shard {shard}"
    # With a small limit and no insertion order, ten million samples are grouped in about a gigabyte.
    with (
        store.lock(what),
        store.files.folder(what) as folder,
        store.connect(
            memory_limit=MEMORY_LIMIT, temp_directory=str(folder / "duckdb"), preserve_insertion_order="false"
        ) as con,
    ):
        _fill_result(store, con, dataset, rule, partition, folder, shard, among)
        sums = vote_sums(con)
        # Somebody else may vote on the same questions in other shards, or in none. A key is stored only once.
        with nullcontext() if shard is None else store.lock(split_right):
            counts = store.merge(con, VOTES, "result", partition)
        sums.update(dict(zip(("added", "changed", "unchanged"), counts, strict=True)))
    return sums


def summarised(store: Store, dataset: Dataset, rule: VoteRule, splits: list[str], sums: VoteSums) -> VoteSummary:
    """The summary of a vote on some splits, from the sums of its parts.

    Raises:
        NothingToDo: the rule selects no stored sample.
    """
    if not sums["examples"]:
        models = store.query("SELECT DISTINCT model FROM rationales WHERE dataset = $1 ORDER BY model", [dataset.name])[
            "model"
        ].to_pylist()
        raise NothingToDo(
            f"Nothing to vote on: no teacher of {dataset.name!r} matches {' or '.join(map(repr, rule.teachers))}. "
            f"Stored: {', '.join(models)}."
        )
    return summary_of(rule.vote_id, splits, sums)


def stored_splits(store: Store, dataset: str) -> list[str]:
    """The splits of a dataset that have rationales, sorted."""
    folders = {path.split("/")[2] for path in store.parts(RATIONALES, {"dataset": dataset})}
    return sorted(folder_value(folder) for folder in folders)


def stored_samples(store: Store, partition: dict[str, str]) -> int:
    """About how many samples a partition holds, from its files' footers: older versions of rows count, too."""
    paths = store.parts(RATIONALES, partition)
    if not paths:
        return 0
    with store.connect() as con:
        found = store.execute(con, f"SELECT count(*) AS n FROM {store.read_files(RATIONALES, paths)}")
    return int(found["n"][0].as_py())


def matching_teachers(store: Store, partition: dict[str, str], rule: VoteRule) -> list[str]:
    """The teachers of a partition that take part under a rule, sorted."""
    paths = store.parts(RATIONALES, partition)
    if not paths:
        return []
    with store.connect() as con:  # all versions of a row have the same model
        models = store.execute(
            con,
            f"SELECT DISTINCT model FROM {store.read_files(RATIONALES, paths)} "
            "WHERE source IN ('teacher', 'recorded') ORDER BY model",
        )["model"].to_pylist()
    return [model for model in models if any(model == glob or fnmatchcase(model, glob) for glob in rule.teachers)]


def _fill_result(
    store: Store,
    con: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    rule: VoteRule,
    partition: dict[str, str],
    folder: Path,
    shard: Shard | None,
    among: Sequence[str] | None,
) -> None:
    """Creates the temporary view `result`: the vote rows of one partition, or of a part of it.

    Args:
        folder: takes what memory cannot.
    """
    held = shard.condition if shard else None
    if among is not None:
        held = f"example_id IN ({', '.join(map(repr, among))})"  # ids are letters and digits
    samples = _wanted_samples(store, con, rule, partition, held=held)
    columns = "example_id, label" if dataset.compares_strings else "example_id, label, extra"
    gold = f"(SELECT {columns} FROM {store.relation(EXAMPLES, partition, held)} WHERE label IS NOT NULL)"
    groups = math.ceil(stored_samples(store, partition) / (shard.of if shard else 1) / SAMPLES_AT_ONCE)
    if among is not None:
        groups = 1
    if groups <= 1:
        store.execute(con, f"CREATE TEMP TABLE gold AS FROM {gold}")
        sql = _voted_rows(store, con, dataset, rule, samples, "gold")
        store.execute(con, f"CREATE TEMP TABLE voted AS {sql}")
    else:
        spooled = Spooled(store, con, folder, groups)
        spooled.add("samples", samples)
        spooled.add("gold", gold)
        for number in range(groups):
            sql = _voted_rows(
                store, con, dataset, rule, spooled.group("samples", number), spooled.group("gold", number)
            )
            spooled.keep("voted", number, sql)
        con.execute(f"CREATE TEMP VIEW voted AS FROM {spooled.kept('voted')}")
    # Examples that an earlier vote had samples of and this one has not (a damaged file was set aside).
    store.execute(
        con,
        f"CREATE TEMP TABLE gone AS SELECT example_id FROM {store.relation(VOTES, partition, held)} "
        "ANTI JOIN voted USING (example_id) WHERE vote_id = $vote_id AND n_sampled > 0",
        {"vote_id": rule.vote_id},
    )
    # A view adds the columns that are the same in every row; in a table they would fill the memory.
    con.execute(
        "CREATE TEMP TABLE constants AS SELECT $vote_id AS vote_id, $dataset AS dataset, $split AS split, "
        "$rule AS rule, $created_at::TIMESTAMPTZ AS created_at, NULL::VARCHAR AS run_id",
        {
            "vote_id": rule.vote_id,
            "rule": json.dumps(rule.content(), sort_keys=True),
            "created_at": now(),
            **partition,
        },
    )
    con.execute(
        f"CREATE TEMP VIEW result AS {no_rows(VOTES)} UNION ALL BY NAME SELECT * FROM "
        "(FROM voted UNION ALL BY NAME SELECT example_id, 0 AS n_sampled, 0 AS n_parsed, 0 AS n_miscalculated, "
        "0 AS n_votes, false AS tie, [] AS positives, [] AS negatives FROM gone) CROSS JOIN constants"
    )


def _voted_rows(
    store: Store, con: duckdb.DuckDBPyConnection, dataset: Dataset, rule: VoteRule, samples: str, gold: str
) -> str:
    """SQL for the vote rows of some examples, from all of their samples and their gold labels."""
    samples = _drawn(store, con, rule, samples)
    right = "answer = label"
    if not dataset.compares_strings:
        _judge(store, con, dataset, samples, gold)
        right = "list_contains(right_answers, answer)"
        gold = f"(SELECT * FROM {gold} LEFT JOIN judged USING (example_id))"
    return vote_sql(samples, gold, right, rule.positives, dataset.answer_kind == LABEL_SETS)


def selected_samples(
    store: Store, con: duckdb.DuckDBPyConnection, rule: VoteRule, partition: dict[str, str], questions: str = ""
) -> str:
    """SQL for the samples that take part: a query over the store's files, or a table if they are shuffled.

    Args:
        questions: a table of `con`, whose `example_id`s are the only ones that count; none for all.
    """
    return _drawn(store, con, rule, _wanted_samples(store, con, rule, partition, questions))


def _wanted_samples(
    store: Store,
    con: duckdb.DuckDBPyConnection,
    rule: VoteRule,
    partition: dict[str, str],
    questions: str = "",
    held: str | None = None,
) -> str:
    """SQL for those among which `rule.n` are drawn, each with whether it `votes`.

    Args:
        questions: as `selected_samples` takes it.
        held: SQL over `example_id`: whether a question counts.
    """
    votes = "true"
    if rule.check_arithmetic:
        con.create_function("miscalculates", _miscalculates, ["VARCHAR"], "BOOLEAN", type=PythonUDFType.ARROW)
        votes = "NOT miscalculates(coalesce(rationale, ''))"
    columns = f"sample_id, example_id, sample_index, answer, rationale_hash, logprob, {votes} AS votes"
    of_these = f"SEMI JOIN {questions} USING (example_id)" if questions else ""
    rationales = f"{store.relation(RATIONALES, partition, held)} {of_these}"
    teachers = f"(SELECT * FROM {rationales} WHERE source IN ('teacher', 'recorded'))"
    matching = matching_teachers(store, partition, rule)
    con.register("matching_models", pa.table({"model": pa.array(matching, pa.string())}))
    return f"(SELECT {columns} FROM {teachers} SEMI JOIN matching_models USING (model))"


def _drawn(store: Store, con: duckdb.DuckDBPyConnection, rule: VoteRule, wanted: str) -> str:
    """SQL for the samples that are drawn: a table `chosen`, or all that are wanted."""
    if rule.n is None:
        return wanted
    # md5, not DuckDB's hash: a seed must choose the same samples in every version.
    store.execute(
        con,
        f"CREATE OR REPLACE TEMP TABLE chosen AS SELECT * FROM {wanted} QUALIFY row_number() OVER "
        "(PARTITION BY example_id ORDER BY md5(concat($seed, '/', sample_id)), sample_id) <= $n",
        {"seed": str(rule.seed), "n": rule.n},
    )
    return "chosen"


def _miscalculates(rationales: pa.ChunkedArray) -> pa.Array:
    return pa.array([miscalculates(text) for text in rationales.to_pylist()], pa.bool_())


def _judge(store: Store, con: duckdb.DuckDBPyConnection, dataset: Dataset, samples: str, gold: str) -> None:
    """Creates `judged`: the answers that are right, for datasets that do not just compare strings."""
    rows = store.execute(
        con,
        f"SELECT DISTINCT example_id, answer, label, extra FROM {samples} JOIN {gold} USING (example_id) "
        "WHERE answer IS NOT NULL ORDER BY example_id, answer",
    )
    right: dict[str, list[str]] = {}
    for example, answer, label, extra in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        if dataset.equal(answer, label, json.loads(extra or "{}")):
            right.setdefault(example, []).append(answer)
    judged = pa.table(
        {
            "example_id": pa.array(list(right), pa.string()),
            "right_answers": pa.array(list(right.values()), pa.list_(pa.string())),
        }
    )
    con.register("judged", judged)
