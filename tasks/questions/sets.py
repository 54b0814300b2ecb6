"""Which questions a distillation trains on, validates on and tests on.

A set of questions is a rule over stored examples, not a list. Steps pass it on as a few values, and each finds the same
questions by it. Where a question belongs follows from a hash of the example's id alone, so questions that arrive later
move none of the others.
"""

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from storage.datasets.registry import BUILT_IN
from storage.datasets.variants import VariantKind
from storage.errors import NothingToDo
from storage.ids import content_id
from storage.schemas import EXAMPLES, PREDICTIONS
from storage.shards import Shard, bucket
from storage.store import Store

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
PASSED_ON = "passed-on"
"""The split of the questions that `qcrd answer` passes on to the teacher."""


class DatasetConfig(BaseModel):
    """The dataset of a distillation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The dataset
    name: str = Field(
        description=f"A built-in dataset ({', '.join(BUILT_IN)}), reasoning-gym:NAME, or the path of your own YAML "
        "definition."
    )
    paths: dict[str, str] = Field(
        default_factory=dict,
        description="Files with the questions of a split, as split: file, in place of the dataset's own source.",
    )

    # The splits
    train_split: str = Field(default="train", description="Split with the training questions.")
    validation_split: str | None = Field(
        default="validation",
        description="Split with the validation questions; null holds out `validation_share` of the training questions.",
    )
    test_split: str | None = Field(
        default="test", description="Split with the test questions; null leaves out the final test."
    )
    validation_share: float = Field(
        default=0.1, gt=0, lt=1, description="Share of the training questions that is held out, 0 to 1."
    )
    folds: int | None = Field(
        default=None,
        ge=2,
        description="Number of folds, for cross-validation inside the training split: one fold is the test set, and "
        "`validation_share` of the others is the validation set.",
    )
    fold: int = Field(default=0, ge=0, description="Number of the fold that is the test set, from 0.")
    passed_on: bool = Field(
        default=True,
        description=f"Train also on the questions that `qcrd answer` has passed on to the teacher (split {PASSED_ON}), "
        "with the teacher's majority as their label.",
    )
    limit: int | None = Field(
        default=None, ge=1, description="Take at most this many training questions; null takes all."
    )
    validation_limit: int | None = Field(
        default=None, ge=1, description="Take at most this many validation questions; null takes all."
    )
    test_limit: int | None = Field(
        default=None, ge=1, description="Take at most this many test questions; null takes all."
    )

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold must be below folds ({self.folds}), not {self.fold}")
        return self

    @model_validator(mode="after")
    def _no_question_twice(self) -> Self:
        named = [split for split in (self.train_split, self.validation_split, self.test_split) if split is not None]
        if PASSED_ON in named:
            raise ValueError(f"{PASSED_ON} is the split of what `qcrd answer` passes on; name another one")
        if self.folds is None and len(set(named)) < len(named):
            raise ValueError(
                f"train_split, validation_split and test_split must differ ({', '.join(named)}): the same questions "
                "would be used twice. To carve parts from one split, set validation_split to null or use folds"
            )
        return self

    def splits(self) -> dict[Part, str]:
        """The split from which each part takes its questions; a part that does not exist is left out."""
        if self.folds is not None:
            return dict.fromkeys(PARTS, self.train_split)
        found: dict[Part, str] = {"train": self.train_split, "validation": self.validation_split or self.train_split}
        return found if self.test_split is None else found | {"test": self.test_split}

    def of_further(self, split: str) -> "DatasetConfig":
        """For the steps of a teacher: the same dataset, with a split of further training questions.

        Args:
            split: which holds nothing else.
        """
        return DatasetConfig(
            name=self.name, paths=self.paths, train_split=split, validation_split=None, test_split=None
        )

    def passed_on_set(self, dataset: str) -> "QuestionSet":
        """The questions that `qcrd answer` has passed on, but those that are asked in one of the parts, too: somebody
        may have asked a test question, and it must not be trained on."""
        return QuestionSet(dataset=dataset, split=PASSED_ON, apart_from=tuple(sorted(set(self.splits().values()))))

    def question_set(self, dataset: str, part: Part) -> "QuestionSet":
        """The rule for one part.

        Args:
            dataset: the dataset's stored name (a YAML definition's differs from its path).
            part: one of `splits`.
        """
        limits = {"train": self.limit, "validation": self.validation_limit, "test": self.test_limit}
        carved = self.folds is not None or (self.validation_split is None and part != "test")
        return QuestionSet(
            dataset=dataset,
            split=self.splits()[part],
            part=part if carved else None,
            folds=self.folds,
            fold=self.fold,
            validation_share=self.validation_share,
            limit=limits[part],
        )


class VariantsConfig(BaseModel):
    """More training questions from few: variants that the teacher writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rephrased: int = Field(
        default=0, ge=0, description="Variants of each question in other words, with its label; 0 writes none."
    )
    changed: int = Field(
        default=0,
        ge=0,
        description="Variants of each question with another answer, which its own vote gives; 0 writes none.",
    )
    of: Literal["all", "wrong"] = Field(
        default="all",
        description="Of which training questions: `all`, or those with a label that the champion answers `wrong`; none "
        "while there is no champion.",
    )
    overlap: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Share of common word trigrams from which on a variant is too like a validation or test question, "
        "or another variant, and is refused; 1 is looser.",
    )

    @property
    def kinds(self) -> dict[VariantKind, int]:
        """How many of each kind are wanted, of those that are."""
        wanted: dict[VariantKind, int] = {"rephrased": self.rephrased, "changed": self.changed}
        return {kind: count for kind, count in wanted.items() if count}


_WORDS = r"trim(regexp_replace(lower(question), '[^\p{L}\p{N}]+', ' ', 'g'))"
"""SQL: a question without what spelling, spaces and punctuation change."""


class QuestionSet(BaseModel):
    """A rule that chooses stored examples.

    Attributes:
        dataset, split: where they are stored.
        part: which part of the split, if several are carved from it; None takes the whole split.
        folds, fold, validation_share: how it is carved; see `DatasetConfig`.
        limit: at most this many, the first by hash.
        shard: only those that are in it; None for all.
        apart_from: splits; what is asked there, too, in the same words, is left out, whatever the choices.
        only: ids, of which others are left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    split: str
    part: Part | None = None
    folds: int | None = None
    fold: int = 0
    validation_share: float = 0.1
    limit: int | None = None
    apart_from: tuple[str, ...] = ()
    shard: Shard | None = None

    def half(self, number: int) -> Self:
        """One half of it, 0 or 1, by the questions' ids."""
        return self.model_copy(update={"shard": Shard(number=number, of=2)})

    only: tuple[str, ...] | None = None

    @property
    def partition(self) -> dict[str, str]:
        """Its partition of the store's tables."""
        return {"dataset": self.dataset, "split": self.split}

    def sql(self, store: Store) -> str:
        """A parenthesised query for the chosen rows of the examples table."""
        test = f"{bucket(1)} % {self.folds} = {self.fold}" if self.folds else "false"
        validation = f"{bucket(9)} % 10000 < {round(self.validation_share * 10_000)}"
        condition = {
            None: "true",
            "test": test,
            "validation": f"NOT ({test}) AND {validation}",
            "train": f"NOT ({test}) AND NOT ({validation})",
        }[self.part]
        if self.only is not None:
            listed = ", ".join("'" + one.replace("'", "''") + "'" for one in self.only)
            condition += f" AND example_id IN ({listed or 'NULL'})"
        limit = "" if self.limit is None else f"LIMIT {self.limit}"
        own = (
            f"(SELECT * FROM {store.relation(EXAMPLES, self.partition)} WHERE {condition} "
            f"ORDER BY md5(example_id), example_id {limit})"
        )
        own = own if self.shard is None else f"(SELECT * FROM {own} WHERE {self.shard.condition})"
        if not self.apart_from:
            return own
        known = " UNION ALL ".join(
            f"SELECT {_WORDS} AS words FROM {store.relation(EXAMPLES, self.partition | {'split': split})}"
            for split in self.apart_from
        )
        return (
            f"(SELECT * EXCLUDE (words) FROM (SELECT *, {_WORDS} AS words FROM {own}) "
            f"ANTI JOIN ({known}) USING (words))"
        )

    def ids(self, store: Store, shard: Shard | None = None) -> list[str]:
        """The ids of the chosen examples, in an order that depends on them alone.

        Args:
            shard: only those that are in it.

        Raises:
            NothingToDo: there are none; a shard may be empty.
        """
        held = "true" if shard is None else shard.condition
        with store.connect() as con:
            rows = store.execute(
                con,
                f"SELECT example_id FROM {self.sql(store)} WHERE {held} ORDER BY md5(example_id), example_id",
            )
        if not rows.num_rows and shard is None:
            raise NothingToDo(
                f"No {self.part or 'stored'} questions of {self.dataset!r}, split {self.split!r}; "
                "store some with `qcrd sample` or `qcrd import`, or name another split in the configuration."
            )
        found: list[str] = rows["example_id"].to_pylist()
        return found

    def rights(self, store: Store, model: str) -> dict[str, bool]:
        """example_id -> whether a model (by its name in the predictions table) was right, for those it answered; going
        by the answer that it gives when it is served."""
        with store.connect() as con:
            rows = store.execute(
                con,
                "SELECT example_id, coalesce(given_correct, correct) AS correct "
                f"FROM {store.relation(PREDICTIONS, self.partition)} "
                f"SEMI JOIN {self.sql(store)} USING (example_id) WHERE model = $1",
                [model],
            )
        return dict(zip(rows["example_id"].to_pylist(), rows["correct"].to_pylist(), strict=True))


def questions_version(store: Store, sets: Iterable[QuestionSet]) -> str:
    """Content id of all questions and labels of some sets; another id means other questions or labels.

    An example's id is a hash of its question and choices, so ids and labels are enough.
    """
    digests = []
    with store.connect() as con:
        for one in sets:
            found = store.execute(
                con,
                "SELECT md5(string_agg(md5(concat_ws('=', example_id, label)), '' ORDER BY example_id)) AS digest "
                f"FROM {one.sql(store)}",
            )
            digests.append(found["digest"].to_pylist()[0])
    return content_id("questions", digests)
