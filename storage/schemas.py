"""The tables of the store: one Arrow schema and one key each.

The files are the truth, so every row says by itself what it belongs to (dataset, split, source are columns, and
the folders repeat them only so that readers can skip files).
"""

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 1
"""Raised by one whenever a reader of the old version could not understand a new file."""

_TIME = pa.timestamp("us", tz="UTC")
_NAME = pa.string()
_TARGETS = pa.list_(pa.field("element", pa.struct([("sample_id", pa.string()), ("count", pa.int32())])))
"""Distinct rationale texts: the sample that stands for each (the lowest id) and how often it was sampled."""


@dataclass(frozen=True)
class Table:
    """One table of the store.

    Attributes:
        name: its folder under the root.
        schema: columns and types of every part file.
        key: the columns that identify a row; where two rows share a key, the newest (`created_at`) counts.
        partitions: columns that name the folders below the table, outermost first; few and coarse.
        content: columns that ids, votes and training data are made from; no part file may lack one.

    A table may gain a column: add it to the schema, and part files written before read as null there. A column that
    belongs in `content` must not read as null, so it takes a new SCHEMA_VERSION and a way to read older stores.
    """

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    partitions: tuple[str, ...]
    content: tuple[str, ...]

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that no part file may lack: null in their place would be taken for what was sampled."""
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
            ("label", pa.string()),  # normalised gold answer; null where unknown
            ("extra", pa.string()),  # JSON object: whatever else the source had
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
            ("seed", pa.int64()),
            ("temperature", pa.float64()),
            ("top_p", pa.float64()),
            ("prompt_hash", pa.string()),
            ("text", pa.string()),  # exactly as sampled
            ("rationale", pa.string()),  # the text without its closing answer statement
            ("rationale_hash", pa.int64()),  # of `rationale`; equal texts share it, so votes need not read the texts
            ("answer", pa.string()),  # normalised; null where none could be read
            ("parse_error", pa.string()),  # why the answer is null
            ("finish_reason", pa.string()),
            ("prompt_tokens", pa.int32()),  # of the request; every sample of it repeats the figure
            ("completion_tokens", pa.int32()),  # of this sample; null where the endpoint does not say
            ("logprob", pa.float64()),  # mean over the sample's tokens, nats; null where not asked for
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
            ("winner", pa.string()),  # the majority answer; null where nothing could be parsed
            ("n_sampled", pa.int32()),
            ("n_parsed", pa.int32()),
            ("n_votes", pa.int32()),  # parsed samples with the winning answer
            ("share", pa.float64()),  # n_votes / n_parsed; null where nothing could be parsed
            ("entropy", pa.float64()),  # of the parsed answers, nats
            ("tie", pa.bool_()),
            ("correct", pa.bool_()),  # winner equals the gold label; null without a label
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
            ("answer", pa.string()),
            ("rationale", pa.string()),
            ("correct", pa.bool_()),
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
            ("detail", pa.string()),  # JSON: what one number cannot say, such as the share of each answer
            ("created_at", _TIME),
        ]
    ),
    key=("run_id", "name"),
    partitions=("dataset",),
    content=("value",),
)

TABLES: dict[str, Table] = {
    table.name: table for table in (EXAMPLES, RATIONALES, VOTES, SCORES, PREDICTIONS, RUNS, FIGURES)
}
