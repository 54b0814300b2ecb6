"""`qcrd audit`: a person judges a random sample of answers in the terminal, and learns how many are right."""

import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import (
    DEFAULT_HOME,
    DatasetOption,
    HomeOption,
    JsonOption,
    ModelOption,
    VoteOption,
    at_least,
    home_at,
    one_of,
    only_model,
    split_named,
)
from flows.home import Home
from flows.terminal import notice, out, plain, print_json
from storage.datasets.definition import Dataset
from storage.datasets.registry import get_dataset
from storage.errors import NothingToDo, UsageError
from storage.store import Store

if TYPE_CHECKING:
    from tasks.watching.audit import Estimate, Item, Judgement, Subject

OF = {"teacher": "train", "champion": "test"}
"""Whose answers can be judged -> the split that they are looked for in."""
KEYS = "r right   w wrong   t type the right answer   c cannot tell   e explanation   b back   q quit"
BLIND = "Your answer, or: ? cannot tell   < back   Ctrl-D quit"


def audit_command(
    dataset: DatasetOption,
    split: Annotated[
        str | None, typer.Option("--split", help="Split of the questions; by default train, of the champion test.")
    ] = None,
    sample: Annotated[int, typer.Option("--sample", help="Answers in the sample; more than before goes on.")] = 50,
    of: Annotated[str, typer.Option("--of", help="Whose answers: teacher (the majority) or champion.")] = "teacher",
    blind: Annotated[bool, typer.Option("--blind", help="Type your own answer before you see the other.")] = False,
    by: Annotated[str, typer.Option("--by", help="Your name, if it is to be stored; names judge apart.")] = "",
    keep: Annotated[
        bool, typer.Option("--keep", help="Make the right answers gold labels of questions without one.")
    ] = False,
    vote: VoteOption = None,
    model: ModelOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed draws another sample.")] = 0,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Judge a random sample of answers by hand, without labels.

    Shows questions with their answers; a key judges each, and is stored at once.
    Run again, it goes on where it stopped. Prints the share of right answers with
    its interval. --json prints what is known so far and asks nothing.

    Example: qcrd audit --dataset tickets.yaml --sample 50
    """
    from tasks.watching import audit  # takes a second, for the registry

    at_least("--sample", sample, 1)
    one_of("--of", of, OF)
    split = split_named(split if split is not None else OF[of])
    if not by.isprintable():
        raise UsageError("--by takes a name without control characters.")
    place, named = home_at(home), get_dataset(dataset)
    store = place.open_store()
    if of == "teacher":
        subject = audit.of_vote(store, named.name, split, vote)
    else:
        subject = _champion(place, store, named, split, model)
    items = audit.sampled(store, named.name, split, subject, sample, seed)
    if not items:
        raise NothingToDo(f"No questions of {named.name!r}, split {split!r}, have an answer of {subject.name}.")
    session = _Session(store, named, split, items, by, blind=blind)
    if not as_json and session.next_item() is not None:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UsageError(
                f"{session.estimate()} {session.left()} are left to judge, which takes a terminal: this is none. "
                "--json prints what is known so far."
            )
        notice(f"{subject.name[0].upper()}{subject.name[1:]} on {named.name}, {split}: {len(items):,} answers.")
        try:
            session.ask()
        finally:
            out.print()
            found = session.estimate()
            out.print(plain(str(found)))
            if found.left:
                more = (
                    f" {found.later:,} that are known count once those before them are judged." if found.later else ""
                )
                notice(f"{found.left:,} of {len(items):,} are left; the same command goes on.{more}")
    elif not as_json:
        out.print(plain(str(session.estimate())))
        notice(f"All {len(items):,} are judged; a larger --sample asks for more.")
    if as_json:
        print_json(_figures(session, subject, split))
    if keep:
        _keep(session)


class _Session:
    """One person at one sample.

    Args:
        items: the sample.
        auditor: the person's name; empty for none.
        blind: whether the person answers before seeing the other answer.
    """

    def __init__(
        self, store: Store, dataset: Dataset, split: str, items: "list[Item]", auditor: str, *, blind: bool
    ) -> None:
        from tasks.watching import audit

        self.audit = audit
        self.store, self.dataset, self.split = store, dataset, split
        self.items, self.auditor, self.blind = items, auditor, blind
        self.found = audit.judgements(store, dataset.name, split, auditor)
        self.by_key = {(item.example_id, item.answer): item for item in items}

    def estimate(self) -> "Estimate":
        """What the sample says so far."""
        return self.audit.estimate(self.dataset, self.items, self.found)

    def next_item(self) -> "Item | None":
        """The first answer that has to be judged."""
        verdicts = self.audit.verdicts_on(self.dataset, self.items, self.found)
        return self.items[verdicts.index(None)] if None in verdicts else None

    def left(self) -> int:
        """How many answers have to be judged."""
        return self.estimate().left

    def ask(self) -> None:
        """Shows one answer after the other until all are judged or the person quits."""
        while (item := self.next_item()) is not None:
            self._show(item)
            if not (self._ask_blind(item) if self.blind else self._ask_key(item)):
                return

    def _ask_key(self, item: "Item", own: str | None = None) -> bool:
        """Until a key judges the answer or leaves the question; False to quit.

        Args:
            own: the right answer, if the person has typed one; stored with the verdict "wrong".
        """
        while True:
            key = _key()
            if key == "q":
                return False
            if key == "b":
                self._take_back()
                return True
            if key == "e":
                out.print(
                    plain(item.rationale if item.rationale is not None else "No explanation is stored.", "italic")
                )
            elif key in ("r", "w", "c"):
                verdict = {"r": "right", "w": "wrong", "c": "unsure"}[key]
                self._judge(item, self.audit.Judgement(verdict, own if key == "w" else None))  # type: ignore[arg-type]
                return True
            elif key == "t":
                if self._typed(item):
                    return True
            else:
                out.print(plain("Press one key: r, w, t, c, e, b or q.", "dim"))

    def _typed(self, item: "Item") -> bool:
        """Reads the right answer; False if none was typed."""
        answer = self._read("The right answer (Enter for none): ", item)
        if answer is None:
            return False
        self._judge(item, self._compared(item, answer))
        return True

    def _ask_blind(self, item: "Item") -> bool:
        while True:
            try:
                line = input("> ").strip()
            except EOFError:
                return False
            if line == "<":
                self._take_back()
                return True
            if line == "?":
                self._judge(item, self.audit.Judgement("unsure"))
                return True
            if (answer := self._answer(line, item)) is not None:
                break
        out.print(plain(f"  answer: {item.answer}", "cyan"))
        judgement = self._compared(item, answer)
        if judgement.verdict == "wrong" and self.dataset.answer_kind == "custom":
            out.print(plain(f"Free text: is it right, too?   {KEYS}", "dim"))
            return self._ask_key(item, answer)
        self._judge(item, judgement)
        return True

    def _read(self, prompt: str, item: "Item") -> str | None:
        """An answer in the dataset's spelling; None if an empty line, or the end of the input, came instead."""
        while True:
            try:
                line = input(prompt).strip()
            except EOFError:
                return None
            if not line or (answer := self._answer(line, item)) is not None:
                return answer if line else None

    def _answer(self, line: str, item: "Item") -> str | None:
        """What was typed, in the dataset's spelling; says so if it is no answer."""
        answer = self.audit.as_answer(self.dataset, item, line)
        if answer is None and line:
            out.print(plain(f"{line!r} is no answer to a question of {self.dataset.name}; type another.", "yellow"))
        return answer

    def _compared(self, item: "Item", right: str) -> "Judgement":
        equal = item.answer is not None and self.dataset.equal(item.answer, right, item.extra)
        return self.audit.Judgement("right" if equal else "wrong", right)

    def _judge(self, item: "Item", judgement: "Judgement") -> None:
        self.audit.record(self.store, self.dataset, self.split, item, judgement, self.auditor, self.blind)
        if item.answer is not None:
            key = (item.example_id, item.answer)
            self.found.pop(key, None)
            if judgement.verdict is not None:
                self.found[key] = dataclasses.replace(judgement, judged=item.judged)  # the newest last
        said = {"right": "right", "wrong": "wrong", "unsure": "cannot tell", None: "taken back"}[judgement.verdict]
        out.print(
            plain(f"  {said}" + (f"; right is {judgement.right_answer}" if judgement.right_answer else ""), "dim")
        )

    def _take_back(self) -> None:
        """Forgets the last judgement of this sample."""
        for key in reversed(self.found):
            if key in self.by_key:
                self._judge(self.by_key[key], self.audit.Judgement(None))
                return
        out.print(plain("Nothing to take back.", "yellow"))

    def _show(self, item: "Item") -> None:
        out.print()
        out.print(plain(f"{len(self.items) - self.left() + 1} of {len(self.items)}   {item.example_id}", "dim"))
        out.print(plain(item.question, "bold"))
        for position, choice in enumerate(item.choices):
            out.print(plain(f"  ({chr(ord('a') + position)}) {choice}"))
        if not self.blind:
            out.print(plain(f"  answer: {item.answer}", "cyan"))
        out.print(plain(BLIND if self.blind else KEYS, "dim"))


def _key() -> str:
    """One key. Several at once (an arrow, a key held down) are none: each would judge an answer nobody has seen."""
    try:
        pressed = typer.getchar().lower()
    except EOFError:
        return "q"
    return pressed if len(pressed) == 1 else ""


def _champion(home: Home, store: Store, dataset: Dataset, split: str, model: str | None) -> "Subject":
    from tasks.tracking.client import open_tracking
    from tasks.tracking.registry import champion_of
    from tasks.watching.audit import of_student

    name = model or only_model(home)
    champion = champion_of(open_tracking(home.path), name)
    if champion is None:
        raise NothingToDo(f"{name} has no champion; `qcrd registry` lists the versions.")
    # A training stores its student's answers under one name, `qcrd evaluate` under the other.
    trained, registered = champion.tags.get("qcrd.student"), f"{champion.name}/{champion.version}"
    students = [registered] if trained is None else [trained, registered]
    return of_student(store, dataset.name, split, f"{champion.name} version {champion.version}", students)


def _figures(session: _Session, subject: "Subject", split: str) -> dict[str, object]:
    found = session.estimate()
    share, low, high = found.interval or (None, None, None)
    lowest, highest = found.bounds or (None, None)
    return {
        "of": subject.name, "judged": subject.judged, "dataset": session.dataset.name, "split": split,
        "sample": len(session.items), **dataclasses.asdict(found), "share": share, "low": low, "high": high,
        "lowest": lowest, "highest": highest,
    }  # fmt: skip


def _keep(session: _Session) -> None:
    """Says what has changed by it, too."""
    kept = session.audit.keep(session.store, session.dataset, session.split, session.items, session.found)
    if kept.added:
        notice(
            f"{kept.added:,} questions got a gold label: `qcrd vote` counts with them, and trainings on labels of "
            "training questions begin anew. Trainings that these questions validate do not: begin another one yourself."
        )
    else:
        notice("No question got a gold label" + ("." if kept.had or kept.differing else ": no right answer is known."))
    if kept.had:
        notice(f"{kept.had:,} questions had this gold label already.")
    if kept.differing:
        notice(f"{kept.differing:,} questions have another label already, which stays.")
    if kept.unknown:
        notice(
            f"{kept.unknown:,} answers were judged wrong without a right one, so their questions have no label. Those "
            "that have one are the easier ones: accuracy by these labels alone flatters."
        )
