"""The training set of a method: questions with their answer target, positives and negatives, from votes and samples."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.methods import MethodConfig
from storage.errors import NothingToDo
from storage.ids import RowsId
from storage.schemas import RATIONALES, VOTES
from storage.store import Store
from storage.vote_sql import NO_RATIONALE
from storage.votes import MEMORY_LIMIT, VoteRule, matching_teachers
from tasks.questions.sets import QuestionSet
from tasks.serving.settings import REFUSAL
from tasks.training.folder import PART_ROWS

_TEXTS = pa.list_(pa.field("element", pa.struct([("sample_id", pa.string()), ("text", pa.string())])))
SCHEMA = pa.schema(
    [
        ("example_id", pa.string()),
        ("question", pa.string()),
        ("choices", pa.list_(pa.field("element", pa.string()))),
        ("answer", pa.string()),  # the answer target; null if there is none
        ("positives", _TEXTS),
        ("negatives", _TEXTS),  # the teacher's; the student's own join them in each round
    ]
)


HELD_OUT = 10
"""One question in this many is kept from the discriminator, to measure it on."""


@dataclass(frozen=True)
class TrainingSet:
    """What a method trains on.

    Attributes:
        digest: content id of its rows.
        questions, positives, negatives: how many it has.
        without_answer, without_positives, without_negatives: examples that lack them.
        left_out: questions with neither an answer nor a rationale.
        refusals: questions whose answer target is the refusal (`method.abstain_below`).
    """

    digest: str
    questions: int
    positives: int
    negatives: int
    without_answer: int
    without_positives: int
    without_negatives: int
    left_out: int
    refusals: int = 0


def is_held_out(place: int) -> bool:
    """Whether the discriminator is not trained on the question at a place of a training set, counted from 0; rows are
    ordered by a hash, so these are a random tenth."""
    return place % HELD_OUT == 0


def training_set(
    store: Store,
    questions: QuestionSet,
    rule: VoteRule,
    method: MethodConfig,
    file: Path,
    target: str | None = None,
    sampled_only: bool = False,
    further: Sequence[QuestionSet] = (),
) -> TrainingSet:
    """Assembles a method's training set, a row group at a time, so that it may exceed memory.

    Args:
        file: where it is written: Parquet with SCHEMA, ordered by example. After an error it may be there in part.
        questions: which ones.
        rule: the rule of the votes stored for them.
        method: decides what counts as answer target and as positive.
        target: the dataset's, a column that takes the label's place as gold answer target.
        sampled_only: leave out questions without a sample that the vote knows, whatever their label: the teacher was
            not asked all (`teacher.budget`).
        further: more questions, which follow the others; only those with such a sample. The majority answer stands
            in for a missing label of theirs.

    Raises:
        NothingToDo: no question, no answer target but the refusal, or no positive is left.
    """
    questions.ids(store)  # says what to do if there are none
    counts: Counter[str] = Counter()
    digest = RowsId("training set")
    with pq.ParquetWriter(file, SCHEMA) as writer:
        rows = chain(
            _rows(store, questions, rule, method, target, sampled_only),
            *(_rows(store, one, rule, method, target, True, winners=target is None) for one in further),
        )
        while group := list(islice(rows, PART_ROWS)):
            usable = []
            for row in group:
                answered, explained = row["answer"] is not None, bool(row["positives"])
                refused = method.abstain_below is not None and row["answer"] == REFUSAL
                counts.update(rows=1, answered=answered, explained=explained, refused=refused)
                # Where both are in one text, both are needed.
                if (answered and explained) if method.one_target else (answered or explained):
                    usable.append(row)
                    digest.add(row)
                    counts.update(
                        questions=1,
                        positives=len(row["positives"]),
                        negatives=len(row["negatives"]),
                        without_answer=not answered,
                        without_positives=not explained,
                        without_negatives=not row["negatives"],
                        refusals=refused,
                    )
            writer.write_table(pa.Table.from_pylist(usable, SCHEMA))
    _refuse_useless(counts, questions, method, target)
    return TrainingSet(
        digest=digest.id(),
        questions=counts["questions"],
        positives=counts["positives"],
        negatives=counts["negatives"],
        without_answer=counts["without_answer"],
        without_positives=counts["without_positives"],
        without_negatives=counts["without_negatives"],
        left_out=counts["rows"] - counts["questions"],
        refusals=counts["refusals"],
    )


def _rows(
    store: Store,
    questions: QuestionSet,
    rule: VoteRule,
    method: MethodConfig,
    target: str | None,
    sampled_only: bool,
    winners: bool = False,
) -> Iterator[dict[str, Any]]:
    """The rows of a training set and those of the other questions, in order.

    With `winners` the majority answer stands in for a missing label. Questions and texts are two sorted streams, joined
    here: DuckDB sorts on the disk what memory cannot hold, but cannot make lists there.
    """
    gold = "q.label" if target is None else f"nullif(trim(json_extract_string(q.extra, '$.{target}')), '')"
    gold = f"coalesce({gold}, v.winner)" if winners else gold
    answer = gold if method.answer_source == "gold" else "v.winner"
    texts_of = {"none": _NO_TEXTS, "first": _first_texts(store, questions, rule), "voted": _VOTED_TEXTS}
    given = f"""
        WITH q AS (SELECT * FROM {questions.sql(store)}),
        v AS (SELECT v.* FROM {store.relation(VOTES, questions.partition)} v SEMI JOIN rule USING (vote_id)
              SEMI JOIN q USING (example_id)),
        r AS (SELECT * FROM {store.relation(RATIONALES, questions.partition)} WHERE source <> 'student')
    """
    asked = f"""{given} SELECT q.example_id, q.question, q.choices, {_taught(answer, method)} AS answer
        FROM q LEFT JOIN v USING (example_id) WHERE {"v.n_sampled > 0" if sampled_only else "true"}
        ORDER BY q.example_id"""
    targets = f"""{given} SELECT example_id, sample_id, text, positive
        FROM ({texts_of[method.rationales]}) ORDER BY example_id, sample_id"""
    with (
        TemporaryDirectory(prefix="qcrd-") as folder,
        store.connect(memory_limit=MEMORY_LIMIT, temp_directory=folder, preserve_insertion_order="false") as con,
    ):
        con.execute("CREATE TABLE rule AS SELECT $1 AS vote_id", [rule.vote_id])
        texts = groupby(store.stream(con.cursor(), targets), key=lambda row: row["example_id"])
        key, group = next(texts, _END)
        for row in store.stream(con, asked):
            sides: dict[bool, list[dict[str, str]]] = {True: [], False: []}
            while key is not None and key < row["example_id"]:  # of a question that is asked no more
                key, group = next(texts, _END)
            if key == row["example_id"]:
                for text in group:
                    sides[text["positive"]].append({"sample_id": text["sample_id"], "text": text["text"]})
                key, group = next(texts, _END)
            yield {**row, "positives": sides[True], "negatives": sides[False]}


def _taught(answer: str, method: MethodConfig) -> str:
    """The SQL of an answer target: the answer, or a refusal where the teacher's votes are too divided."""
    if method.abstain_below is None:
        return answer
    divided = f"v.share < {method.abstain_below!r}"
    return f"CASE WHEN {divided} AND {answer} IS NOT NULL THEN '{REFUSAL}' ELSE {answer} END"


_END: tuple[str | None, Any] = None, ()
_NO_TEXTS = "SELECT NULL AS example_id, NULL AS sample_id, NULL AS text, NULL AS positive WHERE false"
_VOTED_TEXTS = """
    SELECT v.example_id, target.sample_id, r.rationale AS text, positive
    FROM (SELECT example_id, unnest(positives) AS target, true AS positive FROM v
          UNION ALL SELECT example_id, unnest(negatives), false FROM v) v
    JOIN r ON r.sample_id = target.sample_id
"""


def _first_texts(store: Store, questions: QuestionSet, rule: VoteRule) -> str:
    """One sample of each question, whatever it answers: what a pipeline without votes would have asked for."""
    order = f"md5(concat('{rule.seed}', '/', sample_id)), sample_id" if rule.n else "sample_index, model, sample_id"
    teachers = ", ".join(
        "'" + name.replace("'", "''") + "'" for name in matching_teachers(store, questions.partition, rule)
    )
    return f"""
        SELECT example_id, sample_id, rationale AS text, true AS positive FROM r SEMI JOIN q USING (example_id)
        WHERE rationale_hash <> {NO_RATIONALE} AND model IN ({teachers or "NULL"})
        QUALIFY row_number() OVER (PARTITION BY example_id ORDER BY {order}) = 1
    """


def _refuse_useless(counts: Counter[str], questions: QuestionSet, method: MethodConfig, target: str | None) -> None:
    where = f"the {counts['rows']:,} training questions of {questions.dataset!r}, split {questions.split!r}"
    answered = counts["answered"]
    if target is not None and (method.weights[0] or method.one_target) and not answered:
        raise NothingToDo(
            f"None of {where} has an {target!r}, which method {method.name} trains the answer on. Name a file with "
            f"that column (dataset.paths.{questions.split}=FILE), or take a dataset whose students write the label."
        )
    if method.weights[0] and not answered:
        raise NothingToDo(
            f"None of {where} has {'a gold label' if method.answer_source == 'gold' else 'a majority answer'}, which "
            f"method {method.name} trains the answer on. "
            + (
                "Set method.labels=teacher to train on the teacher's majority answers."
                if method.answer_source == "gold"
                else "Sample a teacher first (`qcrd sample`)."
            )
        )
    if answered and counts["refused"] == answered:
        raise NothingToDo(
            f"Of {where}, the {answered:,} with an answer target are all ones on which the teacher's majority has less "
            f"than {method.abstain_below:g} of the votes, so the student would learn nothing but to abstain. Lower "
            "method.abstain_below, or leave it out."
        )
    if method.rationales != "none" and not counts["explained"]:
        raise NothingToDo(
            f"None of {where} has a positive rationale, which method {method.name} trains on. Sample a teacher "
            "(`qcrd sample`) and vote (`qcrd vote`), or take method.name=finetune, which needs none."
        )


def judged_questions(store: Store, questions: QuestionSet, rule: VoteRule) -> tuple[list[dict[str, Any]], str]:
    """The questions that have a label; if none has one, those that have a majority answer.

    Returns:
        The rows, and who says what is right: "gold" or "teacher".

    Raises:
        NothingToDo: none has either.
    """
    with store.connect() as con:
        con.register("rule", pa.table({"vote_id": [rule.vote_id]}))
        rows = store.execute(
            con,
            f"SELECT q.example_id, q.question, q.choices, q.label, q.extra, v.winner FROM {questions.sql(store)} q "
            f"LEFT JOIN (SELECT * FROM {store.relation(VOTES, questions.partition)} SEMI JOIN rule USING (vote_id)) v "
            "USING (example_id) ORDER BY q.example_id",
        ).to_pylist()
    labelled = [row for row in rows if row["label"] is not None]
    if labelled:
        return labelled, "gold"
    voted = [{**row, "label": row["winner"]} for row in rows if row["winner"] is not None]
    if not voted:
        raise NothingToDo(
            f"None of the {len(rows):,} {questions.part or questions.split} questions of {questions.dataset!r} has a "
            "gold label, nor a majority answer to stand in for it; sample a teacher on them, or name labelled ones."
        )
    return voted, "teacher"
