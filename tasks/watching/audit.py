"""How often answers are right where nobody knows the right ones: a person judges a random sample of them.

    items = sampled(store, dataset, "train", of_vote(store, "svamp", "train"), 50)
    record(store, dataset, items[0], Judgement("right"))
    print(estimate(settle(dataset, items, judgements(store, partition))))

Answers are judged, not votes or models: a judgement counts for whoever gave that answer, so a second vote, or the
champion, costs a person only the answers that nobody has judged. Where the right answer is known (one that was judged
right, or one that was typed), other answers to the question are compared with it.

The sample is the first questions in the order of a hash of their ids, so it is random, the same in every session, and
part of every larger one. A person who stops earlier has judged the beginning of it, and that is what counts: all
questions up to the first whose answer still has to be judged, also those without an answer and those that were known
beforehand. What is known further on would count for more than its share. The share of right answers is then unbiased,
after however many judgements a person stops, unless the verdicts decide on it (inverse sampling, which leaves out the
last draw: Haldane, Biometrika 33, 1945).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from storage.datasets.definition import Dataset, Example
from storage.errors import NothingToDo
from storage.schemas import AUDITS, EXAMPLES, PREDICTIONS, RATIONALES, VOTES
from storage.store import Store, now
from storage.voted import newest_vote
from tasks.questions.stored import store_examples
from tasks.tracking.gate import wilson_interval

Verdict = Literal["right", "wrong", "unsure"]


@dataclass(frozen=True)
class Subject:
    """Whose answers are judged.

    Attributes:
        name: for people: "the teacher's majority", "lab-student version 3".
        judged: what is stored with a judgement: the vote's id or the student's name.
        answers: SQL for a query with example_id, answer and rationale of every question that it answered.
    """

    name: str
    judged: str
    answers: str


@dataclass(frozen=True)
class Item:
    """A question of the sample with the answer to be judged.

    Attributes:
        example_id, question, choices, label, extra: as stored.
        answer: None where there is none, which is wrong.
        rationale: how it came about; None where that is not stored.
        judged: whose answer it is (`Subject.judged`).
    """

    example_id: str
    question: str
    choices: tuple[str, ...]
    label: str | None
    extra: Mapping[str, Any]
    answer: str | None
    rationale: str | None
    judged: str


@dataclass(frozen=True)
class Judgement:
    """What a person says of an answer.

    Attributes:
        verdict: None takes back what was said.
        right_answer: the right answer, if the person typed one, normalised.
        judged: whose answer it was said of (`Subject.judged`); set in what `judgements` returns.
    """

    verdict: Verdict | None
    right_answer: str | None = None
    judged: str = field(default="", compare=False)


Judgements = dict[tuple[str, str], Judgement]
"""(example id, answer) -> judgement, the oldest first; without those taken back."""


@dataclass(frozen=True)
class Estimate:
    """What a sample says so far, by its questions up to the first whose answer still has to be judged.

    Attributes:
        right, wrong, unsure: answers of each verdict; `unsure` could not be told.
        none: of the wrong ones, how many are no answer at all.
        left: answers still to be judged.
        later: answers that are known, or none, and do not count yet.
    """

    right: int
    wrong: int
    unsure: int
    none: int
    left: int
    later: int = 0

    @property
    def interval(self) -> tuple[float, float, float] | None:
        """Share of right ones among those that could be told, with Wilson's 95 % interval; None without any."""
        told = self.right + self.wrong
        return (self.right / told, *wilson_interval(self.right, told)) if told else None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The ends of the two intervals if all that could not be told are wrong, and if all are right."""
        everything = self.right + self.wrong + self.unsure
        if not everything:
            return None
        low, _ = wilson_interval(self.right, everything)
        _, high = wilson_interval(self.right + self.unsure, everything)
        return low, high

    def __str__(self) -> str:
        if self.bounds is None:
            return "Nothing of this sample has been judged yet, so there is no estimate."
        told = self.right + self.wrong
        text = f"{self.right} of {told} right" if told else "None could be told"
        if self.interval:
            share, low, high = (100 * value for value in self.interval)
            text += f": {share:.1f} % ({low:.1f} to {high:.1f})"
        if self.none:
            text += f"; {self.none} of the wrong ones {'is' if self.none == 1 else 'are'} no answer"
        if self.unsure:
            low, high = (100 * value for value in self.bounds)
            text += f". {self.unsure} could not be told: {low:.1f} to {high:.1f} %, whether they are all wrong or right"
        return text + "."


def of_vote(store: Store, dataset: str, split: str, wanted: str | None = None) -> Subject:
    """The teacher's majority answers by a vote, the newest one by default.

    Raises:
        NothingToDo: nobody has voted.
        UnknownName: there is no such vote.
    """
    vote_id = newest_vote(store, dataset, split, wanted)
    if vote_id is None:
        raise NothingToDo(
            f"There are no votes on {dataset!r}, split {split!r}. Sample a teacher (`qcrd sample` or `qcrd import`) "
            "and vote (`qcrd vote`), or name another split with --split."
        )
    here = {"dataset": dataset, "split": split}
    return Subject(
        "the teacher's majority",
        vote_id,
        f"SELECT v.example_id, v.winner AS answer, r.rationale FROM {store.relation(VOTES, here)} v LEFT JOIN "
        f"(SELECT sample_id, rationale FROM {store.relation(RATIONALES, here)}) r ON r.sample_id = "
        "list_reverse_sort(list_transform(v.positives, lambda one: {'count': one.count, 'id': one.sample_id}))[1].id "
        f"WHERE v.vote_id = '{vote_id}' AND v.n_sampled > 0",
    )


def of_student(store: Store, dataset: str, split: str, name: str, students: Sequence[str]) -> Subject:
    """What a student answered, by its stored predictions.

    Args:
        name: for people.
        students: its names in the predictions; where it answered a question under several, the newest answer counts.

    Raises:
        NothingToDo: it has answered nothing of the split.
    """
    names = ", ".join("'" + student.replace("'", "''") + "'" for student in students)
    relation = store.relation(PREDICTIONS, {"dataset": dataset})
    with store.connect() as con:
        found = store.execute(con, f"SELECT split, count(*) AS n FROM {relation} WHERE model IN ({names}) GROUP BY 1")
    splits = dict(zip(found["split"].to_pylist(), found["n"].to_pylist(), strict=True)) if found.num_rows else {}
    if split not in splits:
        others = ", ".join(f"{one} ({count:,})" for one, count in sorted(splits.items()))
        raise NothingToDo(
            f"{name} has no stored answers to {dataset!r}, split {split!r}. "
            + (f"Name a split that it has answered with --split: {others}." if others else "Let it answer some first.")
        )
    return Subject(
        name,
        students[0],
        "SELECT example_id, coalesce(given_answer, answer) AS answer, rationale FROM "
        f"{store.relation(PREDICTIONS, {'dataset': dataset, 'split': split})} WHERE model IN ({names}) "
        "QUALIFY row_number() OVER (PARTITION BY example_id ORDER BY created_at DESC, model) = 1",
    )


def sampled(store: Store, dataset: str, split: str, subject: Subject, count: int, seed: int = 0) -> list[Item]:
    """The first so many answered questions, in the order of a hash of seed and id."""
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT e.example_id, e.question, e.choices, e.label, e.extra, a.answer, a.rationale "
            f"FROM {store.relation(EXAMPLES, {'dataset': dataset, 'split': split})} e JOIN ({subject.answers}) a "
            "USING (example_id) ORDER BY md5(concat($1::BIGINT, '/', example_id)), example_id LIMIT $2",
            [seed, count],
        ).to_pylist()
    return [
        Item(**{**row, "choices": tuple(row["choices"] or ()), "extra": json.loads(row["extra"] or "{}")},
             judged=subject.judged)
        for row in rows
    ]  # fmt: skip


def judgements(store: Store, dataset: str, split: str, auditor: str = "") -> Judgements:
    """What a person has said of the answers to a split's questions."""
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT example_id, answer, verdict, right_answer, judged FROM "
            f"{store.relation(AUDITS, {'dataset': dataset, 'split': split})} WHERE auditor = $1 AND verdict IS NOT "
            "NULL ORDER BY created_at, example_id, answer",
            [auditor],
        ).to_pylist()
    return {
        (row["example_id"], row["answer"]): Judgement(row["verdict"], row["right_answer"], row["judged"])
        for row in rows
    }  # fmt: skip


def record(
    store: Store, dataset: Dataset, split: str, item: Item, judgement: Judgement, auditor: str = "", blind: bool = False
) -> None:
    """Stores a judgement of an item's answer, in place of what the same person said of it before."""
    row = {
        "example_id": item.example_id, "answer": item.answer, "auditor": auditor, "dataset": dataset.name,
        "split": split, "judged": item.judged, "verdict": judgement.verdict, "right_answer": judgement.right_answer,
        "blind": blind, "created_at": now(),
    }  # fmt: skip
    with store.lock(f"audits {dataset.name}/{split}"):
        store.upsert(AUDITS, pa.Table.from_pylist([row], AUDITS.schema))


def right_answers(found: Judgements) -> dict[str, str]:
    """example id -> the right answer, where a person named one or judged one right; the newest where they differ."""
    right: dict[str, str] = {}
    for (example, answer), judgement in found.items():
        if judgement.right_answer is not None:
            right[example] = judgement.right_answer
        elif judgement.verdict == "right":
            right[example] = answer
    return right


def verdict_on(dataset: Dataset, item: Item, found: Judgements) -> Verdict | None:
    """What is known of an item's answer; None where a person has to judge it."""
    return verdicts_on(dataset, [item], found)[0]


def verdicts_on(dataset: Dataset, items: Sequence[Item], found: Judgements) -> list[Verdict | None]:
    """`verdict_on` each."""
    right = right_answers(found)
    return [_verdict(dataset, item, found, right.get(item.example_id)) for item in items]


def _verdict(dataset: Dataset, item: Item, found: Judgements, right: str | None) -> Verdict | None:
    if item.answer is None:
        return "wrong"
    if said := found.get((item.example_id, item.answer)):
        return said.verdict
    if right is None:
        return None
    if dataset.equal(item.answer, right, item.extra):
        return "right"
    # Of answers in free text, several may be right.
    return None if dataset.answer_kind == "custom" else "wrong"


def estimate(dataset: Dataset, items: Sequence[Item], found: Judgements) -> Estimate:
    """What a sample says so far.

    Nothing before one of this subject's answers was judged: what is known by then, on the way to the first that is
    not, is chosen by being known.
    """
    verdicts = verdicts_on(dataset, items, found)
    reached = verdicts.index(None) if None in verdicts else len(items)
    if reached < len(items) and not any(_judged_here(item, found) for item in items[:reached]):
        reached = 0
    count = verdicts[:reached].count
    none = sum(item.answer is None for item in items[:reached])
    left = verdicts.count(None)
    return Estimate(count("right"), count("wrong"), count("unsure"), none, left, len(items) - reached - left)


def _judged_here(item: Item, found: Judgements) -> bool:
    said = None if item.answer is None else found.get((item.example_id, item.answer))
    return said is not None and said.judged == item.judged


@dataclass(frozen=True)
class Kept:
    """Right answers that became gold labels.

    Attributes:
        added: questions that had no label and have one now.
        had: questions whose label is the right answer already.
        differing: questions whose label is another answer; it stays.
        unknown: questions whose answer was judged wrong without a right one; they have none.
    """

    added: int
    had: int
    differing: int
    unknown: int


def keep(store: Store, dataset: Dataset, split: str, items: Sequence[Item], found: Judgements) -> Kept:
    """Makes the right answers of a sample gold labels of questions without one."""
    right = right_answers(found)
    known = [(item, right[item.example_id]) for item in items if item.example_id in right]
    bare = [Example(item.question, item.choices, answer, item.extra) for item, answer in known if item.label is None]
    if bare:
        store_examples(store, dataset, split, bare)
    labelled = [dataset.equal(answer, item.label, item.extra) for item, answer in known if item.label is not None]
    unknown = sum(
        verdict_on(dataset, item, found) == "wrong" and item.example_id not in right and item.label is None
        for item in items
    )
    return Kept(len(bare), labelled.count(True), labelled.count(False), unknown)


def as_answer(dataset: Dataset, item: Item, typed: str) -> str | None:
    """What a person typed, in the dataset's spelling; for a choice its letter will do. None if it is no answer."""
    typed = typed.strip()
    place = ord(typed.lower()) - ord("a") if len(typed) == 1 and typed.isascii() else -1
    if 0 <= place < len(item.choices) and typed not in item.choices:
        typed = item.choices[place]
    return dataset.normalise(typed, item.choices) if typed else None
