"""Self-consistency votes (docs/distillation.md; Wang et al. 2023, arXiv 2203.11171), as SQL over the rationales.

The answer with the most votes of an example wins. Every parsed sample has one, but for those with wrong arithmetic
under `check_arithmetic`. Ties go to the highest mean log-probability, then to the lowest sample index, and are recorded
as ties. Where answers are sets of labels, each label is voted on by itself: those in more than half of the votes make
the winner. That may be no sample's own answer, and then nothing is a positive. Equal rationale texts are one target,
with the number of times it was sampled. The SQL groups samples by (answer, text), these by answer, and these by
example. Its largest intermediate result has one row per distinct text, so it runs on about a million samples at a time,
chosen by a hash of their example.
"""

import json
import math
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import duckdb
import pyarrow as pa
from duckdb.func import PythonUDFType
from pydantic import BaseModel, ConfigDict, Field

from storage.columns import no_rows
from storage.datasets.arithmetic_steps import miscalculates
from storage.datasets.definition import LABEL_SETS, Dataset
from storage.datasets.label_sets import BETWEEN, NO_LABELS
from storage.errors import NothingToDo, UnknownName
from storage.files import folder_value
from storage.ids import content_id, rationale_hash
from storage.schemas import EXAMPLES, RATIONALES, VOTES
from storage.store import Store, now

Positives = Literal["majority", "gold", "majority-and-gold"]
SAMPLES_AT_ONCE = 1_250_000
"""About how many samples are grouped in one pass."""
NO_RATIONALE = rationale_hash("")
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


@dataclass(frozen=True)
class VoteSummary:
    """The figures of one vote.

    Attributes:
        vote_id: the rule's content id.
        splits: the splits voted on.
        examples: examples with at least one selected sample.
        samples: selected samples.
        unparsed: selected samples without an answer.
        miscalculated: selected samples with an answer that do not vote because of their arithmetic.
        ties: examples with more than one answer in first place.
        labelled: examples with a gold label.
        single_accuracy: share of the labelled examples' selected samples that equal the gold label; unparsed samples
            count as wrong. None without labels.
        majority_accuracy: share of the labelled examples whose winner equals the label; examples without a parsed
            sample count as wrong. None without labels.
        mean_positives: votes for the winner, mean over examples.
        mean_share: votes for the winner / all votes, mean over examples with a vote.
        mean_entropy: entropy of the parsed answers in nats, mean over the same examples.
        positive_targets, negative_targets: distinct rationale texts, summed over examples. A text that is a positive
            is not a negative too, and an empty text is neither.
        added, changed, unchanged: vote rows in the store.
    """

    vote_id: str
    splits: list[str]
    examples: int
    samples: int
    unparsed: int
    miscalculated: int
    ties: int
    labelled: int
    single_accuracy: float | None
    majority_accuracy: float | None
    mean_positives: float
    mean_share: float | None
    mean_entropy: float | None
    positive_targets: int
    negative_targets: int
    added: int
    changed: int
    unchanged: int


def vote(store: Store, dataset: Dataset, rule: VoteRule, split: str | None = None) -> VoteSummary:
    """Votes on every split (or one) of a dataset and stores a row per example.

    Voting again by the same rule stores only what has changed.

    Raises:
        UnknownName: no rationale of that split is stored.
        NothingToDo: the rule selects no stored sample.
        DamagedPart: a part file cannot be read.
    """
    stored = stored_splits(store, dataset.name)
    if not stored:
        raise NothingToDo(
            f"Nothing to vote on: no rationales of {dataset.name!r} are stored at {store.files.given}. "
            "Sample some with `qcrd sample` or bring some with `qcrd import`."
        )
    if split is not None and split not in stored:
        raise UnknownName("split", split, stored, f"Rationales of {dataset.name!r} are stored for these.")
    splits = [split] if split is not None else stored
    sums: Counter[str] = Counter()
    for name in splits:
        partition = {"dataset": dataset.name, "split": name}
        # With a small limit and no insertion order, ten million samples are grouped in about a gigabyte.
        with (
            store.lock(f"votes {dataset.name}/{name}"),
            store.connect(memory_limit=MEMORY_LIMIT, preserve_insertion_order="false") as con,
        ):
            _fill_result(store, con, dataset, rule, partition)
            sums.update(_sums(con))
            counts = store.merge(con, VOTES, "result", partition)
            sums.update(dict(zip(("added", "changed", "unchanged"), counts, strict=True)))
    if not sums["examples"]:
        models = store.query("SELECT DISTINCT model FROM rationales WHERE dataset = $1 ORDER BY model", [dataset.name])[
            "model"
        ].to_pylist()
        raise NothingToDo(
            f"Nothing to vote on: no teacher of {dataset.name!r} matches {' or '.join(map(repr, rule.teachers))}. "
            f"Stored: {', '.join(models)}."
        )
    return _summary(rule, splits, sums)


def stored_splits(store: Store, dataset: str) -> list[str]:
    """The splits of a dataset that have rationales, sorted."""
    folders = {path.split("/")[2] for path in store.parts(RATIONALES, {"dataset": dataset})}
    return sorted(folder_value(folder) for folder in folders)


def matching_teachers(store: Store, partition: dict[str, str], rule: VoteRule) -> list[str]:
    """The teachers of a partition that take part under a rule, sorted."""
    with store.connect() as con:
        models = store.execute(
            con,
            f"SELECT DISTINCT model FROM {store.relation(RATIONALES, partition)} "
            "WHERE source IN ('teacher', 'recorded') ORDER BY model",
        )["model"].to_pylist()
    return [model for model in models if any(model == glob or fnmatchcase(model, glob) for glob in rule.teachers)]


def _fill_result(
    store: Store, con: duckdb.DuckDBPyConnection, dataset: Dataset, rule: VoteRule, partition: dict[str, str]
) -> None:
    """Creates the temporary view `result`: the vote rows of one partition."""
    samples = selected_samples(store, con, rule, partition)
    counted = store.execute(con, f"SELECT count(*) AS n FROM {store.relation(RATIONALES, partition)}")
    total = counted["n"][0].as_py()
    store.execute(
        con,
        f"CREATE TEMP TABLE gold AS SELECT example_id, label, extra FROM {store.relation(EXAMPLES, partition)} "
        "WHERE label IS NOT NULL",
    )
    if dataset.compares_strings:
        right, gold = "answer = label", "gold"
    else:
        _judge(store, con, dataset, samples)
        right = "list_contains(right_answers, answer)"
        gold = "(SELECT * FROM gold LEFT JOIN judged USING (example_id))"
    passes = max(1, math.ceil(total / SAMPLES_AT_ONCE))
    for number in range(passes):
        chosen = f"(SELECT * FROM {samples} WHERE hash(example_id) % {passes} = {number})" if passes > 1 else samples
        head = "CREATE TEMP TABLE voted AS" if number == 0 else "INSERT INTO voted"
        sql = _vote_sql(chosen, gold, right, rule.positives, dataset.answer_kind == LABEL_SETS)
        store.execute(con, f"{head} {sql}")
    # Examples that an earlier vote had samples of and this one has not (a damaged file was set aside).
    gone = (
        f"(SELECT example_id FROM {store.relation(VOTES, partition)} WHERE vote_id = $vote_id AND n_sampled > 0) "
        "ANTI JOIN voted USING (example_id)"
    )
    store.execute(
        con,
        "INSERT INTO voted BY NAME SELECT example_id, 0 AS n_sampled, 0 AS n_parsed, 0 AS n_miscalculated, "
        f"0 AS n_votes, false AS tie, [] AS positives, [] AS negatives FROM {gone}",
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
        f"CREATE TEMP VIEW result AS {no_rows(VOTES)} UNION ALL BY NAME SELECT * FROM voted CROSS JOIN constants"
    )


def selected_samples(
    store: Store, con: duckdb.DuckDBPyConnection, rule: VoteRule, partition: dict[str, str], questions: str = ""
) -> str:
    """SQL for the samples that take part: a query over the store's files, or a table if they are shuffled.

    Args:
        questions: a table of `con`, whose `example_id`s are the only ones that count; none for all.
    """
    votes = "true"
    if rule.check_arithmetic:
        con.create_function("miscalculates", _miscalculates, ["VARCHAR"], "BOOLEAN", type=PythonUDFType.ARROW)
        votes = "NOT miscalculates(coalesce(rationale, ''))"
    columns = f"sample_id, example_id, sample_index, answer, rationale_hash, logprob, {votes} AS votes"
    of_these = f"SEMI JOIN {questions} USING (example_id)" if questions else ""
    rationales = f"{store.relation(RATIONALES, partition)} {of_these}"
    teachers = f"(SELECT * FROM {rationales} WHERE source IN ('teacher', 'recorded'))"
    matching = matching_teachers(store, partition, rule)
    con.register("matching_models", pa.table({"model": pa.array(matching, pa.string())}))
    wanted = f"SELECT {columns} FROM {teachers} SEMI JOIN matching_models USING (model)"
    if rule.n is None:
        return f"({wanted})"
    # md5, not DuckDB's hash: a seed must choose the same samples in every version.
    store.execute(
        con,
        f"CREATE TEMP TABLE chosen AS {wanted} QUALIFY row_number() OVER "
        "(PARTITION BY example_id ORDER BY md5(concat($seed, '/', sample_id)), sample_id) <= $n",
        {"seed": str(rule.seed), "n": rule.n},
    )
    return "chosen"


def _miscalculates(rationales: pa.ChunkedArray) -> pa.Array:
    return pa.array([miscalculates(text) for text in rationales.to_pylist()], pa.bool_())


def _judge(store: Store, con: duckdb.DuckDBPyConnection, dataset: Dataset, samples: str) -> None:
    """Creates `judged`: the answers that are right, for datasets that do not just compare strings."""
    rows = store.execute(
        con,
        f"SELECT DISTINCT example_id, answer, label, extra FROM {samples} JOIN gold USING (example_id) "
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


def _vote_sql(samples: str, gold: str, right: str, positives: Positives, per_label: bool) -> str:
    """One row per example: the columns of the votes table, except those that are the same in every row.

    Args:
        samples: SQL for the selected samples, each with whether it `votes`.
        gold: SQL for (example_id, label) and what `right` needs.
        right: SQL for "this answer equals the gold label"; NULL or false if not.
        per_label: whether answers are sets of labels.
    """
    majorities, of_majorities = "", ""
    # The last term decides even if everything else is equal.
    winner = "arg_max(answer, (n_votes, logprob, -first_index, answer)) FILTER (answer IS NOT NULL AND n_votes > 0)"
    most_votes = "coalesce(max(n_votes) FILTER (answer IS NOT NULL), 0)"
    ties = """
        SELECT example_id, count(*) > 1 AS tie, bool_or(is_right AND answer = winner) AS winner_is_right
        FROM answers JOIN (SELECT example_id, most_votes, winner FROM winners) USING (example_id)
        WHERE answer IS NOT NULL AND n_votes > 0 AND n_votes = most_votes GROUP BY example_id"""
    if per_label:
        majorities = f"""of_label AS (
        SELECT example_id, one_label, sum(n_votes) AS votes_for
        FROM (SELECT example_id, n_votes, unnest(string_split(answer, '{BETWEEN}')) AS one_label
              FROM answers WHERE n_votes > 0 AND answer <> '{NO_LABELS}') GROUP BY ALL
    ), majorities AS MATERIALIZED (
        SELECT example_id, bool_or(2 * votes_for = in_all) AS undecided,
               coalesce(string_agg(one_label, '{BETWEEN}' ORDER BY one_label) FILTER (2 * votes_for > in_all),
                        '{NO_LABELS}') AS majority
        FROM (SELECT example_id, sum(n_votes) AS in_all FROM answers WHERE answer IS NOT NULL AND n_votes > 0
              GROUP BY example_id) LEFT JOIN of_label USING (example_id) GROUP BY example_id
    ), """
        of_majorities = "LEFT JOIN majorities USING (example_id)"
        winner = "any_value(majority)"
        most_votes = "coalesce(max(n_votes) FILTER (answer = majority), 0)"
        ties = """
        SELECT example_id, coalesce(undecided, false) AS tie, winner = label AS winner_is_right
        FROM winners JOIN majorities USING (example_id)"""
    is_positive = {
        "majority": "votes AND answer = winner",
        "gold": "votes AND is_right",
        "majority-and-gold": "votes AND answer = winner AND is_right",
    }[positives]
    is_negative = {
        "majority": "answer <> winner",
        "gold": "label IS NOT NULL AND NOT is_right",
        "majority-and-gold": "label IS NOT NULL AND NOT is_right",
    }[positives]
    rightness = "JOIN (SELECT example_id, answer, label, is_right FROM answers) USING (example_id, answer)"
    if positives == "majority":
        rightness = ""  # saves a join
    return f"""
    WITH texts AS MATERIALIZED (
        SELECT example_id, answer, votes, rationale_hash, count(*)::INTEGER AS count,
               min(sample_id) AS sample_id, min(sample_index) AS first_index,
               sum(logprob) AS logprob_sum, count(logprob) AS logprob_count
        FROM {samples} GROUP BY ALL
    ), answers AS MATERIALIZED (
        SELECT example_id, answer, sum(count)::INTEGER AS samples,
               coalesce(sum(count) FILTER (votes), 0)::INTEGER AS n_votes,
               min(first_index) FILTER (votes) AS first_index,
               -- a missing log-probability ranks below every real one
               coalesce(sum(logprob_sum) FILTER (votes) / nullif(sum(logprob_count) FILTER (votes), 0),
                        '-infinity'::DOUBLE) AS logprob,
               any_value(label) AS label, coalesce(any_value({right}), false) AS is_right
        FROM texts LEFT JOIN {gold} USING (example_id) GROUP BY example_id, answer
    ), {majorities} winners AS MATERIALIZED (
        SELECT example_id, sum(samples)::INTEGER AS n_sampled,
               coalesce(sum(n_votes) FILTER (answer IS NOT NULL), 0)::INTEGER AS n_parsed,
               coalesce(sum(samples - n_votes) FILTER (answer IS NOT NULL), 0)::INTEGER AS n_miscalculated,
               {winner} AS winner, ({most_votes})::INTEGER AS most_votes,
               -- entropy of the shares v/n: ln n - sum(v ln v) / n; rounding may take it just below zero
               greatest(0, ln(greatest(1, n_parsed)) - sum(n_votes * ln(greatest(1, n_votes)))
                               FILTER (answer IS NOT NULL) / nullif(n_parsed, 0)) AS entropy,
               any_value(label) AS label, coalesce(sum(samples) FILTER (is_right), 0)::INTEGER AS right_samples
        FROM answers {of_majorities} GROUP BY example_id
    ), ties AS ({ties}
    ), targets AS (
        -- A text is one target, however often and with whatever answers it was sampled. A text that is a positive is
        -- not a negative too, and an empty text explains nothing.
        SELECT example_id, rationale_hash,
               min(sample_id) FILTER ({is_positive}) AS positive, sum(count) FILTER ({is_positive}) AS positive_count,
               min(sample_id) FILTER ({is_negative}) AS negative, sum(count) FILTER ({is_negative}) AS negative_count
        FROM texts JOIN (SELECT example_id, winner FROM winners) USING (example_id) {rightness}
        WHERE rationale_hash <> {NO_RATIONALE} GROUP BY example_id, rationale_hash
    ), listed AS (
        SELECT example_id,
               list({{'sample_id': positive, 'count': positive_count::INTEGER}}) FILTER (positive IS NOT NULL)
                   AS positives,
               list({{'sample_id': negative, 'count': negative_count::INTEGER}})
                   FILTER (positive IS NULL AND negative IS NOT NULL) AS negatives
        FROM targets GROUP BY example_id
    )
    SELECT example_id, winner, n_sampled, n_parsed, n_miscalculated, most_votes AS n_votes,
           most_votes / nullif(n_parsed, 0) AS share, CASE WHEN n_parsed > 0 THEN entropy END AS entropy,
           coalesce(tie, false) AS tie,
           CASE WHEN label IS NOT NULL THEN coalesce(winner_is_right, false) END AS correct,
           CASE WHEN label IS NOT NULL THEN right_samples END AS n_correct,
           coalesce(list_sort(positives), []) AS positives, coalesce(list_sort(negatives), []) AS negatives
    FROM winners LEFT JOIN ties USING (example_id) LEFT JOIN listed USING (example_id)
    """


def _sums(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """The sums for a summary, of one partition."""
    columns = {
        "examples": "count(*)",
        "samples": "sum(n_sampled)",
        "unparsed": "sum(n_sampled - n_parsed - n_miscalculated)",
        "miscalculated": "sum(n_miscalculated)",
        "ties": "count(*) FILTER (tie)",
        "labelled": "count(correct)",
        "labelled_samples": "sum(n_sampled) FILTER (correct IS NOT NULL)",
        "right_samples": "sum(n_correct)",
        "right": "count(*) FILTER (correct)",
        "votes": "sum(n_votes)",
        "parsed_examples": "count(share)",
        "share": "sum(share)",
        "entropy": "sum(entropy)",
        "positives": "sum(len(positives))",
        "negatives": "sum(len(negatives))",
    }
    sql = ", ".join(f"coalesce({expression}, 0) AS {name}" for name, expression in columns.items())
    values = con.execute(f"SELECT {sql} FROM voted WHERE n_sampled > 0").fetchall()[0]
    return dict(zip(columns, values, strict=True))


def _summary(rule: VoteRule, splits: list[str], sums: Counter[str]) -> VoteSummary:
    """The summary of a vote, from the sums of its partitions."""

    def mean(total: str, count: str) -> float | None:
        # The last digits of a sum of floats depend on the order, and threads finish in any order.
        return round(float(sums[total]) / sums[count], 12) if sums[count] else None

    return VoteSummary(
        vote_id=rule.vote_id,
        splits=splits,
        **{name: int(sums[name]) for name in ("examples", "samples", "unparsed", "miscalculated", "ties", "labelled")},
        single_accuracy=mean("right_samples", "labelled_samples"),
        majority_accuracy=mean("right", "labelled"),
        mean_positives=mean("votes", "examples") or 0.0,
        mean_share=mean("share", "parsed_examples"),
        mean_entropy=mean("entropy", "parsed_examples"),
        positive_targets=int(sums["positives"]),
        negative_targets=int(sums["negatives"]),
        **{name: int(sums[name]) for name in ("added", "changed", "unchanged")},
    )
