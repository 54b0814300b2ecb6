"""What a dataset is: its questions, its prompts, and how an answer is read out of a teacher's text.

A dataset is a `Dataset` object. The built-in ones are modules of this folder, found by name through
`registry.get_dataset`; a user's own is a YAML file (`custom.py`) and yields the same object. Everything
downstream (sampling, voting, training) knows only this interface.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Example:
    """One question, before it is stored.

    Attributes:
        question: what is asked, as one text; for inference datasets "Premise: ...\\nHypothesis: ...".
        choices: the answer choices in order; empty where there are none. May hold duplicates.
        label: the gold answer, already normalised; None where unknown.
        extra: whatever else the source has (its own id, an equation ...), JSON-serialisable.
    """

    question: str
    choices: tuple[str, ...] = ()
    label: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Exemplar:
    """One worked question shown to the teacher: question, rationale, answer as it should be written."""

    question: str
    rationale: str
    answer: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parsed:
    """What a parser read from one sampled text.

    Attributes:
        rationale: the text without its closing answer statement; the whole text where there is none.
        answer: the normalised answer, or None.
        parse_error: why there is no answer (short, stable, e.g. "no answer found"); None exactly when `answer` is set.
    """

    rationale: str
    answer: str | None
    parse_error: str | None


@dataclass(frozen=True)
class Prompt:
    """A few-shot chain-of-thought prompt, independent of the API it is sent through.

    Attributes:
        system: the instruction.
        turns: (question as rendered, reply as rendered) for each exemplar.
        question: the question to answer, as rendered.
        plain: the prompt as one text for the completions API; ends where the teacher continues.
        stop: strings at which a completions endpoint must stop.
    """

    system: str
    turns: tuple[tuple[str, str], ...]
    question: str
    plain: str
    stop: tuple[str, ...] = ()

    def messages(self) -> list[dict[str, str]]:
        """The prompt as chat messages: system, one user/assistant pair per exemplar, the question."""
        out = [{"role": "system", "content": self.system}] if self.system else []
        for asked, replied in self.turns:
            out += [{"role": "user", "content": asked}, {"role": "assistant", "content": replied}]
        return [*out, {"role": "user", "content": self.question}]


class Loader(Protocol):
    """Yields the examples of one split, from a file when `path` is given, else from the dataset's own source."""

    def __call__(self, split: str, path: str | None = None, limit: int | None = None) -> Iterator[Example]: ...


@dataclass(frozen=True)
class Dataset:
    """One dataset: everything the pipeline needs to know about it.

    Attributes:
        name: as given on the command line and stored in every row.
        description: one line for people.
        answer_kind: "number", "choice", "label" or "custom"; what the built-in parser reads.
        splits: the splits `load` knows.
        load: yields examples of a split.
        teacher_prompt: the few-shot prompt for one question with its choices.
        student_input: the text a student reads after its task prefix, for one question with its choices.
        parse: reads (rationale, answer) from one sampled text.
        normalise: brings an answer to the one spelling that equal answers share; None where it is no answer.
        equal: whether a normalised answer counts as right for a normalised gold label. Most datasets compare
            strings; reasoning-gym asks its own scorer, which needs the example's `extra`.
        compares_strings: True where `equal` is plain string equality, so that SQL can do it.
        example_from_row: turns a row of a user's or a recorded file (column -> value) into an `Example`;
            raises `storage.errors.BadFile` naming the missing column.
        fields: the names a column mapping may use for the columns that `example_from_row` reads.
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
