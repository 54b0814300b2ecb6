"""The tables of the store, each with its Arrow schema and its key.

Dataset, split and source are columns, so every row says what it belongs to. The folders repeat them only so that
readers can skip files.
"""

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 3
"""The newest that is read. Increased whenever a reader of the old version could not understand a new file."""
FIRST_VERSION = 1
"""What a store needs until something newer is written into it."""
COMPACTED_VERSION = 2
"""What a store needs once it holds compacted files: before, every part file counted."""
FORGOTTEN_VERSION = 3
"""What a store needs once examples were forgotten: before, writers would have brought them back."""

_TIME = pa.timestamp("us", tz="UTC")
_NAME = pa.string()
_TARGETS = pa.list_(pa.field("element", pa.struct([("sample_id", pa.string()), ("count", pa.int32())])))
"""Distinct rationale texts: the sample that represents each (the lowest id) and how often it was sampled."""


@dataclass(frozen=True)
class Table:
    """One table of the store.

    Attributes:
        name: also its folder under the root.
        schema: columns and types of every part file.
        key: columns that identify a row; if rows share a key, the newest (`created_at`) counts.
        partitions: columns that name the folders below the table, outermost first; few and coarse.
        content: columns that ids, votes and training data are made from; every part file must have them.

    To give a table a column, add it to the schema: in older part files it reads as null. A new column that belongs in
    `content` must not, so it also takes a new SCHEMA_VERSION and a way to read older stores.
    """

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    partitions: tuple[str, ...]
    content: tuple[str, ...]

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that every part file must have, because null would be a wrong value, not a missing one."""
        return (*self.key, *self.partitions, *self.content, "created_at")


EXAMPLES = Table(
    "examples",
    pa.schema(
        [
            pa.field("example_id", pa.string(), nullable=False),
            ("dataset", _NAME),
            ("split", _NAME),
            ("question", pa.string()),
            ("choices", pa.list_(pa.field("element", pa.string()))),
            ("label", pa.string()),  # normalised gold answer; null if unknown
            ("extra", pa.string()),  # JSON object: the source's other columns
            ("created_at", _TIME),
        ]
    ),
    key=("example_id",),
    partitions=("dataset", "split"),
    content=("question", "choices", "label", "extra"),
)

RATIONALES = Table(
    "rationales",
    pa.schema(
        [
            pa.field("sample_id", pa.string(), nullable=False),
            pa.field("example_id", pa.string(), nullable=False),
            ("dataset", _NAME),
            ("split", _NAME),
            ("source", _NAME),  # teacher | student | recorded
            ("model", _NAME),  # the teacher's or student's name
            ("model_revision", _NAME),  # fingerprint of a local model folder; null for endpoints and recordings
            ("round", pa.int32()),  # student samples: the round of the checkpoint; null otherwise
            ("sample_index", pa.int32()),
            ("seed", pa.int64()),  # these three as they were sent; null where an endpoint refuses them
            ("temperature", pa.float64()),
            ("top_p", pa.float64()),
            ("top_k", pa.int32()),  # student samples; null for all tokens, and in older files
            ("prompt_hash", pa.string()),
            ("text", pa.string()),  # exactly as sampled
            (
                "thought",
                pa.string(),
            ),  # what the teacher thought before its final text; null without, and in older files
            ("rationale", pa.string()),  # of the final text or the thought, without a closing answer statement
            ("rationale_from", _NAME),  # what `teacher.rationale` said of that; null for others, and in older files
            ("rationale_hash", pa.int64()),  # of `rationale`: votes compare hashes instead of reading texts
            ("answer", pa.string()),  # normalised; null if none could be read
            ("parse_error", pa.string()),  # why the answer is null
            (
                "token_ids",
                pa.list_(pa.field("element", pa.int32())),
            ),  # student samples: as written; null in older files
            ("finish_reason", pa.string()),
            ("prompt_tokens", pa.int32()),  # of the request; repeated in each of its samples
            (
                "completion_tokens",
                pa.int32(),
            ),  # of this sample, its thought included; an equal share where the endpoint tells only the request's sum
            ("reasoning_tokens", pa.int32()),  # of its thought; null if the endpoint does not say, and in older files
            ("logprob", pa.float64()),  # mean over the sample's tokens, nats; null if not requested
            ("created_at", _TIME),
            ("run_id", pa.string()),
        ]
    ),
    key=("sample_id",),
    partitions=("dataset", "split", "source"),
    content=(
        *("model", "model_revision", "round", "sample_index", "seed", "temperature", "top_p", "prompt_hash"),
        *("text", "rationale", "rationale_hash", "answer", "logprob"),
    ),
)

VOTES = Table(
    "votes",
    pa.schema(
        [
            pa.field("vote_id", pa.string(), nullable=False),
            pa.field("example_id", pa.string(), nullable=False),
            ("dataset", _NAME),
            ("split", _NAME),
            ("winner", pa.string()),  # the majority answer; null if nothing could be parsed
            ("n_sampled", pa.int32()),
            ("n_parsed", pa.int32()),  # samples with an answer, less the miscalculated ones: those that vote
            ("n_miscalculated", pa.int32()),  # wrong arithmetic, by `votes.check_arithmetic`; null in older files
            ("n_votes", pa.int32()),  # for the winning answer
            ("share", pa.float64()),  # n_votes / n_parsed; null if nothing votes
            ("entropy", pa.float64()),  # of the parsed answers, nats
            ("tie", pa.bool_()),
            ("correct", pa.bool_()),  # the winner equals the gold label; null without a label
            ("n_correct", pa.int32()),  # samples equal to the gold label; null without a label
            ("positives", _TARGETS),
            ("negatives", _TARGETS),
            ("rule", pa.string()),  # the vote rule as JSON; vote_id is its content id
            ("created_at", _TIME),
            ("run_id", pa.string()),
        ]
    ),
    key=("example_id", "vote_id"),
    partitions=("dataset", "split"),
    content=(
        *("winner", "n_sampled", "n_parsed", "n_votes", "share", "entropy", "tie", "correct", "n_correct"),
        *("positives", "negatives", "rule"),
    ),
)

SCORES = Table(
    "scores",
    pa.schema(
        [
            pa.field("sample_id", pa.string(), nullable=False),
            pa.field("round", pa.int32(), nullable=False),
            pa.field("run_id", pa.string(), nullable=False),
            ("dataset", _NAME),
            ("split", _NAME),
            ("score", pa.float64()),  # the discriminator's quality score, in (0, 1)
            ("created_at", _TIME),
        ]
    ),
    key=("sample_id", "round", "run_id"),
    partitions=("dataset", "split"),
    content=("score",),
)

PREDICTIONS = Table(
    "predictions",
    pa.schema(
        [
            pa.field("example_id", pa.string(), nullable=False),
            pa.field("model", _NAME, nullable=False),
            pa.field("split", _NAME, nullable=False),
            ("dataset", _NAME),
            ("answer", pa.string()),  # the bare one
            ("rationale", pa.string()),
            ("correct", pa.bool_()),
            ("explanation_correct", pa.bool_()),  # the rationale's own answer; null without one, and in older files
            ("given_answer", pa.string()),  # chosen between bare answer and rationales; null where nothing was chosen
            ("given_correct", pa.bool_()),
            ("confidence", pa.float64()),  # probability that given_answer is right
            ("created_at", _TIME),
            ("run_id", pa.string()),
        ]
    ),
    key=("example_id", "model", "split"),
    partitions=("dataset", "split"),
    content=("answer", "rationale", "correct"),
)

RUNS = Table(
    "runs",
    pa.schema(
        [
            pa.field("run_id", pa.string(), nullable=False),
            ("dataset", _NAME),
            ("state", pa.string()),
            ("config", pa.string()),  # JSON
            ("versions", pa.string()),  # JSON: package -> version
            ("prefect_run_id", pa.string()),
            ("mlflow_run_id", pa.string()),
            ("created_at", _TIME),
        ]
    ),
    key=("run_id",),
    partitions=("dataset",),
    content=("state", "config"),
)

FIGURES = Table(
    "figures",
    pa.schema(
        [
            pa.field("run_id", pa.string(), nullable=False),
            pa.field("name", _NAME, nullable=False),  # agreement, unparsed, test_accuracy ...
            ("dataset", _NAME),
            ("value", pa.float64()),
            ("detail", pa.string()),  # JSON: what one number cannot express, such as the share of each answer
            ("created_at", _TIME),
        ]
    ),
    key=("run_id", "name"),
    partitions=("dataset",),
    content=("value",),
)

JUDGEMENTS = Table(
    "judgements",
    pa.schema(
        [
            pa.field("judgement_id", pa.string(), nullable=False),
            pa.field("example_id", pa.string(), nullable=False),
            ("dataset", _NAME),
            ("split", _NAME),
            ("judge", _NAME),  # the model that was asked
            ("judge_revision", _NAME),  # fingerprint of a local model folder; null for endpoints
            ("first", pa.string()),  # the rationale shown first
            ("second", pa.string()),
            ("prompt_hash", pa.string()),
            ("text", pa.string()),  # the judge's reply
            ("preferred", _NAME),  # first | second | tie; null if none could be read
            ("prompt_tokens", pa.int32()),
            ("completion_tokens", pa.int32()),
            ("created_at", _TIME),
            ("run_id", pa.string()),
        ]
    ),
    key=("judgement_id",),
    partitions=("dataset", "split"),
    content=("judge", "first", "second", "text", "preferred"),
)

CHOSEN = Table(
    "chosen",
    pa.schema(
        [
            pa.field("run_id", pa.string(), nullable=False),
            pa.field("example_id", pa.string(), nullable=False),
            ("dataset", _NAME),
            ("split", _NAME),
            ("place", pa.int64()),  # in the order in which they are to be asked, from 0
            ("choose", _NAME),  # teacher.choose, or random where there was no student
            ("student", _NAME),  # the registered version that chose: NAME/VERSION; null of random ones
            ("created_at", _TIME),
        ]
    ),
    key=("run_id", "example_id"),
    partitions=("dataset", "split"),
    content=("place", "choose"),
)

VARIANTS = Table(
    "variants",
    pa.schema(
        [
            pa.field("variant_id", pa.string(), nullable=False),
            pa.field("example_id", pa.string(), nullable=False),  # the question that it is a variant of
            ("dataset", _NAME),
            ("split", _NAME),  # of that question
            ("kind", _NAME),  # rephrased | changed
            ("variant_index", pa.int32()),
            ("model", _NAME),  # the teacher that was asked
            ("model_revision", _NAME),
            ("prompt_hash", pa.string()),
            ("text", pa.string()),  # exactly as sampled
            ("question", pa.string()),  # as read from the text; null if it is none
            ("prompt_tokens", pa.int32()),
            ("completion_tokens", pa.int32()),
            ("created_at", _TIME),
            ("run_id", pa.string()),
        ]
    ),
    key=("variant_id",),
    partitions=("dataset", "split"),
    content=("kind", "variant_index", "model", "text", "question"),
)

FORGOTTEN = Table(
    "forgotten",
    pa.schema(
        [
            pa.field("example_id", pa.string(), nullable=False),
            ("question_id", pa.string()),  # of question and choices, whatever dataset and split they are in
            ("dataset", _NAME),
            ("split", _NAME),
            ("chosen_by", pa.string()),  # --example, --where and the condition's id, or why it went with another one
            ("state", _NAME),  # begun | done
            ("rows", pa.string()),  # JSON: table -> rows that left it
            ("trainings", pa.list_(pa.field("element", pa.string()))),  # that learned from it, by id
            ("versions", pa.list_(pa.field("element", pa.string()))),  # registered ones, as "NAME version 3"
            ("forgotten_at", _TIME),
            ("created_at", _TIME),
        ]
    ),
    key=("example_id",),
    partitions=("dataset",),
    content=("question_id", "state"),
)
"""What `qcrd forget` removed: ids, no texts. No writer stores these examples again (`storage.forgotten`)."""

AUDITS = Table(
    "audits",
    pa.schema(
        [
            pa.field("example_id", pa.string(), nullable=False),
            pa.field("answer", pa.string(), nullable=False),  # the one that a person judged
            pa.field("auditor", _NAME, nullable=False),  # the name that the person gave; empty for none
            ("dataset", _NAME),
            ("split", _NAME),
            ("judged", _NAME),  # whose answer it was: a vote's id, or a student's name
            ("verdict", _NAME),  # right | wrong | unsure; null where it was taken back
            ("right_answer", pa.string()),  # as the person typed it, normalised; null if none was typed
            ("blind", pa.bool_()),  # the person typed it before seeing the answer
            ("created_at", _TIME),
        ]
    ),
    key=("example_id", "answer", "auditor"),
    partitions=("dataset", "split"),
    content=("verdict", "right_answer"),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        EXAMPLES,
        RATIONALES,
        VOTES,
        SCORES,
        PREDICTIONS,
        RUNS,
        FIGURES,
        JUDGEMENTS,
        CHOSEN,
        VARIANTS,
        AUDITS,
        FORGOTTEN,
    )
}
