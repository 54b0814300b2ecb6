"""What a dataset is: its questions, its prompts, and how answers are read from a teacher's texts.

A dataset is a `Dataset` object. The built-in ones are modules of this folder, found by name with
`registry.get_dataset`; a user's own is a YAML file (`custom.py`) that gives the same kind of object. Sampling, voting
and training know only this interface.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

LABEL_SETS = "labels"
"""The answer kind of sets of labels, of which each is voted on by itself."""


@dataclass(frozen=True)
class Example:
    """One question, before it is stored.

    Attributes:
        question: what is asked, as one text; for inference datasets "Premise: ...\\nHypothesis: ...".
        choices: the answer choices in order; empty if there are none. May contain duplicates.
        label: the gold answer, already normalised; None if unknown.
        extra: the source's other columns (its own id, an equation ...), JSON-serialisable.
    """

    question: str
    choices: tuple[str, ...] = ()
    label: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Exemplar:
    """A worked question shown to the teacher, with its answer as it should be written."""

    question: str
    rationale: str
    answer: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parsed:
    """What a parser read from one sampled text.

    Attributes:
        rationale: the text without its closing answer statement; the whole text if there is none.
        answer: the normalised answer, or None.
        parse_error: why there is no answer (short, stable, e.g. "no answer found"); None if and only if there is one.
    """

    rationale: str
    answer: str | None
    parse_error: str | None


@dataclass(frozen=True)
class Prompt:
    """A few-shot chain-of-thought prompt for either API.

    Attributes:
        system: the instruction.
        turns: (rendered question, rendered reply) of each exemplar.
        question: the question to answer, rendered.
        plain: the prompt as one text, for the completions API; it ends where the teacher continues.
        stop: strings at which a completions endpoint must stop.
    """

    system: str
    turns: tuple[tuple[str, str], ...]
    question: str
    plain: str
    stop: tuple[str, ...] = ()

    def messages(self) -> list[dict[str, str]]:
        """The prompt as chat messages: system, a user and an assistant message per exemplar, the question."""
        out = [{"role": "system", "content": self.system}] if self.system else []
        for asked, replied in self.turns:
            out += [{"role": "user", "content": asked}, {"role": "assistant", "content": replied}]
        return [*out, {"role": "user", "content": self.question}]


class Loader(Protocol):
    """Yields the examples of a split, from the file at `path` if it is given, else from the dataset's own source."""

    def __call__(self, split: str, path: str | None = None, limit: int | None = None) -> Iterator[Example]: ...


@dataclass(frozen=True)
class Dataset:
    """A dataset: all that the pipeline needs to know about it.

    Attributes:
        name: its name on the command line and in every row.
        description: one line for people.
        answer_kind: "number", "choice", "label", "labels" or "custom": what its parser reads.
        splits: the splits that `load` knows.
        load: yields examples of a split.
        teacher_prompt: the few-shot prompt for one question with its choices.
        student_input: the text a student reads after its task prefix, for one question with its choices.
        parse: reads rationale and answer from a sampled text.
        normalise: gives an answer the spelling that equal answers share; None if it is not an answer.
        equal: whether a normalised answer is right for a normalised gold label. Most datasets compare strings;
            reasoning-gym asks its own scorer, which needs the example's `extra`.
        compares_strings: whether `equal` is plain string equality, which SQL can do.
        example_from_row: turns a row of a file (column -> value) into an `Example`; raises
            `storage.errors.BadFile`, or `NoField` for a missing column.
        fields: the names that a column mapping may use for the columns that `example_from_row` reads.
        target: the column of `extra` that a student learns to write as its answer, such as SVAMP's equation; None: the
            label. `normalise` makes the label's spelling of it, and a student's answer counts only if it is one.
    """

    name: str
    description: str
    answer_kind: str
    splits: tuple[str, ...]
    load: Loader
    teacher_prompt: Callable[[str, tuple[str, ...]], Prompt]
    student_input: Callable[[str, tuple[str, ...]], str]
    parse: Callable[[str, tuple[str, ...]], Parsed]
    normalise: Callable[[str, tuple[str, ...]], str | None]
    equal: Callable[[str, str, Mapping[str, Any]], bool]
    compares_strings: bool
    example_from_row: Callable[[Mapping[str, Any]], Example]
    fields: tuple[str, ...] = ("question", "choices", "label")
    target: str | None = None

    def answer_of(self, target: str | None, choices: tuple[str, ...]) -> str | None:
        """The answer, in the label's spelling, that an answer target stands for; None if it stands for none."""
        return target if self.target is None or target is None else self.normalise(target, choices)
