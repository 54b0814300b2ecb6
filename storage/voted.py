"""Questions with their samples, and what a vote made of each: for people who read them and for exports.

Both are streamed from DuckDB in one order and joined here, so a store may be larger than memory.
"""

import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import duckdb
import pyarrow as pa

from storage.datasets.definition import Dataset
from storage.errors import UnknownName
from storage.schemas import EXAMPLES, RATIONALES, SCORES, VOTES
from storage.store import Store
from storage.votes import MEMORY_LIMIT, VoteRule, selected_samples

Pick = Literal["all", "ties", "wrong", "unparsed"]
PICKS: dict[str, str] = {
    "all": "true",
    "ties": "v.tie",
    "wrong": "NOT v.correct",
    "unparsed": "v.n_parsed + coalesce(v.n_miscalculated, 0) < v.n_sampled",
}
"""Each Pick as SQL over a row `v` of the votes."""
SAMPLES_AT_ONCE = 500_000
"""About how many samples are sorted in one pass over the store: DuckDB's sort holds a part of them in memory."""
ROWS_AT_ONCE = 1000
"""Rows in memory at a time: texts may be long."""


@dataclass(frozen=True)
class Standing:
    """What a vote made of one sample.

    Attributes:
        side: None for neither; then `words` say why.
        words: for people.
        count: how often the text was sampled, of positives and negatives.
    """

    side: Literal["positive", "negative"] | None
    words: str
    count: int | None = None


@dataclass(frozen=True)
class Wanted:
    """Which questions of a dataset.

    Attributes:
        split, example: only these; None for all.
        vote_id: the vote that counts; None where nobody has voted yet.
        only: as in PICKS.
        unvoted: questions with samples that the vote does not know, too.
        students: samples of students, too; they never vote.
        limit: the first so many; None for all.
    """

    split: str | None = None
    example: str | None = None
    vote_id: str | None = None
    only: Pick = "all"
    unvoted: bool = False
    students: bool = False
    limit: int | None = None

    def sql(self, dataset: str, store: Store) -> tuple[str, list[Any]]:
        """What follows FROM to choose them, of examples `e` and votes `v`, and its parameters $1 to $3."""
        here = {"dataset": dataset}
        known = "v.vote_id IS NOT NULL"
        if self.unvoted:
            known = f"e.example_id IN (SELECT example_id FROM {store.relation(RATIONALES, here)})"
        sql = (
            f"{store.relation(EXAMPLES, here)} e LEFT JOIN {_votes(store, dataset)} v USING (example_id) "
            "WHERE ($2::VARCHAR IS NULL OR e.split = $2) AND ($3::VARCHAR IS NULL OR e.example_id = $3) "
            f"AND {PICKS[self.only]} AND {known}"
        )
        return sql, [self.vote_id, self.split, self.example]


def newest_vote(store: Store, dataset: str, split: str | None = None, wanted: str | None = None) -> str | None:
    """The id of the wanted vote, or of the newest one; None where nothing is voted on yet.

    Raises:
        UnknownName: the wanted one is not stored.
    """
    ids: list[str] = store.query(
        "SELECT vote_id FROM votes WHERE dataset = $1 AND ($2::VARCHAR IS NULL OR split = $2) "
        "GROUP BY vote_id ORDER BY max(created_at) DESC, vote_id",
        [dataset, split],
    )["vote_id"].to_pylist()
    if wanted is not None and wanted not in ids:
        raise UnknownName("vote", wanted, ids)
    return wanted or (ids[0] if ids else None)


def newest_scores(store: Store, dataset: str) -> tuple[str, int] | None:
    """The training that last scored rationales of a dataset, and its last round with scores; None without scores."""
    found = store.query(
        "SELECT run_id, max(round) AS round FROM scores WHERE dataset = $1 GROUP BY run_id "
        "ORDER BY max(created_at) DESC, run_id LIMIT 1",
        [dataset],
    ).to_pylist()
    return (found[0]["run_id"], found[0]["round"]) if found else None


@dataclass(frozen=True)
class VotedFigures:
    """Figures of the wanted questions, whatever the limit.

    Attributes:
        questions, samples: how many; samples that take part in the vote.
        labelled, right: questions with a label, and those whose majority answer is it.
        ties: questions with more than one answer in first place.
        none: questions without a majority answer.
        unparsed: samples without an answer.
    """

    questions: int
    samples: int
    labelled: int
    right: int
    ties: int
    none: int
    unparsed: int


def voted_figures(store: Store, dataset: str, wanted: Wanted) -> VotedFigures:
    """The figures of a vote on the wanted questions."""
    chosen, parameters = wanted.sql(dataset, store)
    with store.connect() as con:
        [found] = store.execute(
            con,
            "SELECT count(*) AS questions, coalesce(sum(n_sampled), 0)::BIGINT AS samples, count(correct) AS labelled, "
            "count(*) FILTER (correct) AS right, count(*) FILTER (tie) AS ties, count(*) FILTER (winner IS NULL) AS "
            "none, coalesce(sum(n_sampled - n_parsed - coalesce(n_miscalculated, 0)), 0)::BIGINT AS unparsed "
            f"FROM {chosen}",
            parameters,
        ).to_pylist()
    return VotedFigures(**found)


def voted_questions(store: Store, dataset: Dataset, wanted: Wanted) -> Iterator[dict[str, Any]]:
    """Yields questions with their votes and samples: those that are voted on first, then by split and id.

    A row has the columns of the examples and of the votes (null where nobody has voted) and

    - `samples`: a list of rows of the rationales, by model and index, each with its `standing`; `votes`, whether its
      answer counts (None: it was not selected); `correct`, whether the answer is the label (None without either); and
      `score`, its quality by `newest_scores`;
    - `outdated`: whether the vote was over other samples, or other answers of them, than are stored now.

    Raises:
        DamagedPart: a part file cannot be read.
    """
    with _connected(store) as con:
        chosen, parameters = wanted.sql(dataset.name, store)
        order = "v.vote_id IS NULL, e.split, example_id"
        limit = "" if wanted.limit is None else f"LIMIT {wanted.limit}"
        store.execute(
            con,
            f"CREATE TABLE asked AS SELECT row_number() OVER (ORDER BY {order}) AS place, example_id FROM {chosen} "
            f"ORDER BY place {limit}",
            parameters,
        )
        _select(store, con, dataset.name, wanted.vote_id)
        for block in _blocks(store, con, dataset.name):
            samples = groupby(_samples(store, con, dataset.name, wanted, block), key=lambda row: row.pop("place"))
            place, group = next(samples, (None, iter(())))
            for row in _questions(store, con, dataset.name, wanted, block):
                here = row.pop("place")
                row["samples"] = list(group) if place == here else []
                if place == here:
                    place, group = next(samples, (None, iter(())))
                yield _judged(row, dataset)


def _votes(store: Store, dataset: str) -> str:
    return (
        f"(SELECT * EXCLUDE (dataset, split) FROM {store.relation(VOTES, {'dataset': dataset})} "
        "WHERE vote_id = $1 AND n_sampled > 0)"
    )


def _select(store: Store, con: duckdb.DuckDBPyConnection, dataset: str, vote_id: str | None) -> None:
    """Creates `selected`: the samples that take part in the vote, and whether their answers count."""
    found = store.execute(con, f"SELECT rule FROM {_votes(store, dataset)} LIMIT 1", [vote_id])["rule"].to_pylist()
    samples = "(SELECT NULL::VARCHAR AS sample_id, NULL::BOOLEAN AS votes WHERE false)"
    if found:
        rule = VoteRule.model_validate(json.loads(found[0]))
        samples = selected_samples(store, con, rule, {"dataset": dataset}, "asked")
    store.execute(con, f"CREATE TABLE selected AS SELECT sample_id, votes FROM {samples}")


def _blocks(store: Store, con: duckdb.DuckDBPyConnection, dataset: str) -> Iterator[tuple[int, int]]:
    """First and last places of blocks with about SAMPLES_AT_ONCE samples: what is sorted at a time."""
    relation = store.relation(RATIONALES, {"dataset": dataset})
    samples = store.execute(con, f"SELECT count(*) AS n FROM {relation} SEMI JOIN asked USING (example_id)")["n"][0]
    questions = store.execute(con, "SELECT count(*) AS n FROM asked")["n"][0].as_py()
    size = math.ceil(questions / max(1, math.ceil(samples.as_py() / SAMPLES_AT_ONCE)))
    for first in range(1, questions + 1, max(1, size)):
        yield first, first + size - 1


def _questions(
    store: Store, con: duckdb.DuckDBPyConnection, dataset: str, wanted: Wanted, block: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    """A block's questions with their votes, in order."""
    return _rows(
        store,
        con.cursor(),  # read in turn with the samples
        "SELECT a.place, e.* EXCLUDE (created_at), v.* EXCLUDE (example_id) FROM asked a "
        f"JOIN {store.relation(EXAMPLES, {'dataset': dataset})} e USING (example_id) "
        f"LEFT JOIN {_votes(store, dataset)} v USING (example_id) "
        "WHERE a.place BETWEEN $2 AND $3 ORDER BY a.place",
        [wanted.vote_id, *block],
    )


def _samples(
    store: Store, con: duckdb.DuckDBPyConnection, dataset: str, wanted: Wanted, block: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    """The samples of a block's questions, in order."""
    here = {"dataset": dataset}
    students = "true" if wanted.students else "r.source <> 'student'"
    training, last = newest_scores(store, dataset) or (None, None)
    scores = f"(SELECT sample_id, score FROM {store.relation(SCORES, here)} WHERE run_id = $1 AND round = $2)"
    return _rows(
        store,
        con,
        "SELECT a.place, r.sample_id, r.source, r.model, r.sample_index, r.answer, r.parse_error, r.rationale, "
        "r.rationale_hash, r.text, r.logprob, r.finish_reason, s.votes, q.score "
        f"FROM asked a JOIN {store.relation(RATIONALES, here)} r USING (example_id) "
        f"LEFT JOIN selected s USING (sample_id) LEFT JOIN {scores} q USING (sample_id) "
        f"WHERE a.place BETWEEN $3 AND $4 AND {students} ORDER BY a.place, r.model, r.sample_index, r.sample_id",
        [training, last, *block],
    )


def _judged(row: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The row with what can be said of it only once all of its samples are here."""
    hashes = {sample["sample_id"]: sample["rationale_hash"] for sample in row["samples"]}
    selected = [sample for sample in row["samples"] if sample["votes"] is not None]
    answers = [sample["answer"] for sample in selected if sample["votes"] and sample["answer"] is not None]
    counted = len(selected), len(answers), answers.count(row["winner"])
    row["outdated"] = row["vote_id"] is not None and counted != tuple(
        row[n] for n in ("n_sampled", "n_parsed", "n_votes")
    )
    extra = json.loads(row["extra"] or "{}")
    for sample in row["samples"]:
        both = sample["answer"] is not None and row["label"] is not None
        sample["correct"] = dataset.equal(sample["answer"], row["label"], extra) if both else None
        sample["standing"] = _standing(row, sample, hashes)
    return row


def _standing(row: dict[str, Any], sample: dict[str, Any], hashes: dict[str, int]) -> Standing:
    """What the vote made of a sample. `hashes` holds the rationale_hash of every sample by its id."""
    if row["vote_id"] is None:
        return Standing(None, "not voted")
    sides: tuple[Literal["positive", "negative"], ...] = ("positive", "negative")
    targets = [(side, target) for side in sides for target in row[f"{side}s"]]
    for side, target in targets:
        if target["sample_id"] == sample["sample_id"]:
            times = f" x{target['count']}" if target["count"] > 1 else ""
            return Standing(side, side + times, target["count"])
    if sample["votes"] is None:
        return Standing(None, "not selected")
    if sample["answer"] is None:
        return Standing(None, f"out: {sample['parse_error']}")
    for side, target in targets:
        if hashes.get(target["sample_id"]) == sample["rationale_hash"]:
            return Standing(None, f"same text as a {side}")
    if not sample["votes"]:
        return Standing(None, "out: wrong arithmetic")
    if not (sample["rationale"] or "").strip():
        return Standing(None, "out: no rationale, only an answer")
    positives = json.loads(row["rule"])["positives"]
    if positives != "majority" and row["label"] is None:
        return Standing(None, "out: the question has no label")
    if positives == "majority-and-gold" and sample["correct"]:
        return Standing(None, "out: right, but not the majority answer")
    return Standing(None, "newer than the vote")


@contextmanager
def _connected(store: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that keeps to a limit of memory, and to a folder of its own beyond it."""
    with (
        tempfile.TemporaryDirectory(prefix="qcrd-") as folder,
        store.connect(memory_limit=MEMORY_LIMIT, temp_directory=folder) as con,
    ):
        yield con


def _rows(store: Store, con: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any]) -> Iterator[dict[str, Any]]:
    """The rows of a query, as they are needed; raises as `Store.query`."""
    try:
        for batch in con.sql(sql, params=parameters).to_arrow_reader(ROWS_AT_ONCE):
            yield from batch.to_pylist()
    except (duckdb.Error, pa.ArrowException) as error:
        raise store.query_failed(error) from error
