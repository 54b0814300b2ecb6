"""The teacher's desk: what is passed on to it is stored, asked, and voted on, so that the next training learns from it.

A question is stored before the teacher is asked, and the samples and their vote before anybody gets the answer. So
after a kill -9 nothing is lost that was paid for or answered: the next start asks what is missing. The rows are those
that `qcrd sample` and `qcrd vote` would make of the same questions, in a split of their own.
"""

import asyncio
import glob
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from fnmatch import fnmatchcase
from itertools import count
from typing import Any, Self

import pyarrow as pa

from models.errors import ModelError, TeacherFailed, TeacherUnavailable
from models.teacher import Teacher, TeacherConfig, TeacherKey
from models.teacher_dialect import Dialect
from storage.compaction import compact_partition
from storage.datasets.definition import Dataset, Example
from storage.errors import StorageError, UsageError, one_line
from storage.ids import example_id
from storage.schemas import EXAMPLES, RATIONALES, VOTES
from storage.store import Store, now
from storage.votes import VoteRule, VotesConfig, vote_on_split
from tasks.cascade.grouping import Grouping
from tasks.cascade.settings import CascadeSettings
from tasks.questions.sets import PASSED_ON
from tasks.questions.stored import store_examples
from tasks.serving.settings import Question
from tasks.teacher.budget import Purse, paid_before
from tasks.teacher.planning import SamplingPlan, plan_sampling
from tasks.teacher.sampling import sample_teacher
from tasks.teacher.session import Notice, TeacherChoice, asking_of
from tasks.teacher.settings import TeacherSettings

AT_ONCE, GROUPS = 256, 8
"""Questions that are asked together, and how many such groups are asked side by side; with a budget of money one, which
watches every request."""
TURNS = 4
"""A group has no more questions than can be asked in so many turns: nobody in it has an answer before all are asked."""
COMPACT_EVERY = 100
"""Groups after which their small files are copied together: each group reads all files of the split."""


class OverBudget(Exception):
    """The teacher may be asked no more today."""


@dataclass(frozen=True)
class Voted:
    """What the teacher's samples say of a question.

    Attributes:
        example_id: of its stored row.
        answer: the majority's; None if no sample has one.
        rationale: of one that comes to it.
        share: of the votes, 0 to 1.
    """

    example_id: str
    answer: str | None
    rationale: str | None
    share: float | None


class Allowance:
    """Requests that may be under way at once, for groups that come and go, from several threads.

    Args:
        most: in all; None for any number.
    """

    def __init__(self, most: int | None) -> None:
        self._left = most
        self._changed = threading.Condition()

    @contextmanager
    def some(self, wanted: int) -> Iterator[int | None]:
        """A part of them, for the duration of the block: at most half of what is left, so that who comes next need not
        wait for a large group's end. Waits until there is one. None for any number."""
        if self._left is None:
            yield None
            return
        with self._changed:
            self._changed.wait_for(lambda: self._left)
            taken = min(wanted, (self._left + 1) // 2)
            self._left -= taken
        try:
            yield taken
        finally:
            with self._changed:
                self._left += taken
                self._changed.notify_all()


class Desk:
    """Asks the teacher what is passed on to it.

    Args:
        store: where everything is stored; the caller holds the right to sample this teacher on the split.
        dataset: how a question is put and an answer read.
        votes: how the samples vote.
        settings: the budget.
        teacher: as the configuration describes it.
        choice: as `choose_teacher` chose it.
        config: where it is.
        notice: called with sentences that say what is going on, from any thread.
        recover: starts its server again; None for an endpoint of somebody else's.
        key: the endpoint's; None takes it from the environment.

    Raises:
        UsageError: the votes leave this teacher out.
        TeacherFailed: entering: it refuses for good, such as a wrong key.
    """

    def __init__(
        self,
        store: Store,
        dataset: Dataset,
        votes: VotesConfig,
        settings: CascadeSettings,
        teacher: TeacherSettings,
        choice: TeacherChoice,
        config: TeacherConfig,
        notice: Notice,
        recover: Callable[[], Awaitable[bool]] | None = None,
        key: TeacherKey | None = None,
    ) -> None:
        self._store, self._dataset, self._settings, self._teacher = store, dataset, settings, teacher
        self._choice, self._recover, self._key = choice, recover, key
        self._rule = VoteRule(
            dataset=dataset.name,
            teachers=teacher.teachers or (glob.escape(choice.identity.model),),
            **votes.model_dump(),
        )
        self._notice = notice
        self._partition = {"dataset": dataset.name, "split": PASSED_ON}
        groups = GROUPS if settings.cost_a_day is None else 1
        self._config, self._allowance = config, Allowance(config.in_flight)
        at_once = AT_ONCE if config.in_flight is None else min(AT_ONCE, TURNS * config.in_flight)
        self._asking: Grouping[Question, Voted] = Grouping(self._ask, "the teacher", at_once, settings.queue, groups)
        self._under_way: dict[str, asyncio.Task[Voted]] = {}
        self._budget, self._tidying = threading.Lock(), threading.Lock()
        self._groups = count(1)
        self._dialects: dict[str, Dialect] = {}  # a group's client learns for all that come
        self._told: set[str] = set()
        self._day: date = now().date()
        self._asked = 0  # questions of this day
        self._spent = 0.0  # on this day; counted only where there is a limit
        model, teachers = choice.identity.model, self._rule.teachers
        if not any(model == one or fnmatchcase(model, one) for one in teachers):
            raise UsageError(f"teacher.teachers ({', '.join(teachers)}) leaves out {model}: what it says has no vote.")

    async def __aenter__(self) -> Self:
        async with Teacher(self._config, self._choice.sampling, self._recover, self._key) as teacher:
            try:
                self._tell_once(*await teacher.check())
            except TeacherUnavailable as error:
                self._notice(f"{error}. The champion answers alone until it is back.")
        unanswered = await asyncio.to_thread(self._begin)
        await self._asking.__aenter__()
        if unanswered:
            lacking = "1 question of an earlier start lacks" if len(unanswered) == 1 else (
                f"{len(unanswered):,} questions of an earlier start lack"
            )  # fmt: skip
            self._notice(f"{lacking} samples; asking the teacher, as far as the budget goes.")
        for question in unanswered:
            self._begin_asking(question, patient=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._under_way:
            self._notice(f"Waiting for the teacher's answers to {len(self._under_way):,} questions.")
            await asyncio.wait(self._under_way.values(), timeout=self._settings.wait_s)
        for task in self._under_way.values():
            task.cancel()
        await self._asking.__aexit__()

    @property
    def left(self) -> int | None:
        """Questions that the teacher may still be asked today; None for any number."""
        most = self._settings.questions_a_day
        return None if most is None else max(0, most - (self._asked if self._day == now().date() else 0))

    @property
    def under_way(self) -> int:
        """Questions that it is being asked, or that wait for that."""
        return len(self._under_way)

    async def pass_on(self, question: Question, *, patient: bool = False) -> Voted:
        """What the teacher says to a question; one that it was asked before costs nothing.

        Args:
            patient: wait as long as it takes.

        Raises:
            OverBudget: it may be asked no more today.
            Overloaded: too many questions wait; not to who is patient.
            TimeoutError: it takes longer than `wait_s`; what it says will be stored all the same. Not to who is
                patient.
            ModelError: from the teacher.
            StorageError: from the store.
        """
        asking = asyncio.shield(self._begin_asking(question, patient=patient))
        return await asyncio.wait_for(asking, None if patient else self._settings.wait_s)

    def _begin_asking(self, question: Question, *, patient: bool = False) -> asyncio.Task[Voted]:
        key = self._id(question)
        if (known := self._under_way.get(key)) is not None:
            return known
        # A task of its own: whoever asked may leave, but the samples are paid for.
        task = self._under_way[key] = asyncio.create_task(self._asking.do(question, patient=patient))

        def end(done: asyncio.Task[Voted]) -> None:
            del self._under_way[key]
            error = None if done.cancelled() else done.exception()  # marks it as seen
            if error is not None and not isinstance(error, OverBudget):
                self._notice(f"Question {key} has no answer of the teacher's: {one_line(error)}.")

        task.add_done_callback(end)
        return task

    def _id(self, question: Question) -> str:
        return example_id(self._dataset.name, PASSED_ON, question.question, question.choices)

    # ---- in threads ----

    def _tell_once(self, *notes: str) -> None:
        """Tells what every group finds anew."""
        for note in notes:
            if note not in self._told:
                self._told.add(note)
                self._notice(note)

    def _begin(self) -> list[Question]:
        """Counts what was asked and paid today, and returns the stored questions without any sample."""
        self._compact()
        midnight = datetime.combine(self._day, time(), UTC)
        examples, rationales = (self._store.relation(table, self._partition) for table in (EXAMPLES, RATIONALES))
        with self._store.connect() as con:
            # By the samples: a question's own row is newer once a label has come.
            today = f"SELECT count(DISTINCT example_id) AS n FROM {rationales} WHERE created_at >= $1"
            self._asked = self._store.execute(con, today, [midnight])["n"][0].as_py()
            voted = f"{self._store.relation(VOTES, self._partition)} WHERE vote_id = $1 AND n_sampled > 0"
            sampled = self._store.execute(
                con,
                f"SELECT DISTINCT example_id FROM {rationales} "
                f"ANTI JOIN (SELECT example_id FROM {voted}) USING (example_id)",
                [self._rule.vote_id],
            )
            rows = self._store.execute(
                con,
                f"SELECT question, choices FROM {examples} ANTI JOIN {rationales} USING (example_id) "
                "ORDER BY example_id",
            ).to_pylist()
        if unvoted := sampled["example_id"].to_pylist():  # killed between its samples and its vote
            lacking = {one.question.example_id for one in self._plan(unvoted).requests}
            self._vote([key for key in unvoted if key not in lacking])
        if self._settings.cost_a_day is not None:
            self._spent = paid_before(
                self._store, self._dataset, PASSED_ON, midnight, self._teacher.price.of, self._choice.sampling
            )
        return [Question(row["question"], tuple(row["choices"])) for row in rows]

    def _plan(self, ids: Sequence[str]) -> SamplingPlan:
        choice = self._choice
        return plan_sampling(
            self._store, self._dataset, PASSED_ON, ids, choice.identity, choice.sampling, self._teacher.seed,
            asking_of(choice, self._dataset),
        )  # fmt: skip

    def _ask(self, questions: Sequence[Question]) -> list[Voted | Exception]:
        """Asks the teacher a group of questions; what is stored already is not asked again."""
        if next(self._groups) % COMPACT_EVERY == 0:
            self._compact()
        ids = [self._id(question) for question in questions]
        refused, counted, day = self._take(dict(zip(ids, questions, strict=True)))
        taken = [key for key in ids if key not in refused]
        failure: Exception = TeacherFailed("the teacher gave no sample")
        if taken and (plan := self._plan(taken)).requests:
            purse = None
            if self._settings.cost_a_day is not None:
                purse = Purse(self._settings.cost_a_day, self._teacher.price.of, self._choice.sampling, self._spent)
            try:
                with self._allowance.some(len(plan.requests)) as in_flight:
                    done = sample_teacher(
                        self._store, self._dataset, PASSED_ON, plan, self._choice.identity,
                        self._config.model_copy(update={"in_flight": in_flight}), self._choice.sampling,
                        notice=self._tell_once, rationale=self._choice.rationale, recover=self._recover, key=self._key,
                        payer=purse, dialects=self._dialects,
                    )  # fmt: skip
                self._tell_once(*(f"The teacher takes {what}." for what in done.learnt))
                refused |= {key: TeacherFailed(f"the endpoint refused it: {why}") for key, why in done.refused.items()}
            except ModelError as error:
                failure = error  # what has come is stored; some questions may have all that they need
            finally:
                if purse is not None:
                    self._spent = purse.spent
            if purse is not None and purse.exhausted:
                failure = OverBudget(f"cascade.cost_a_day is {purse.limit:g}, and {purse.spent:,.2f} are spent today")
            # A majority of some of the samples is another answer than that of all, one day.
            lacking = {one.question.example_id for one in self._plan(taken).requests}
            taken = [key for key in taken if key not in lacking]
            self._give_back([key for key in counted if key in lacking], day)
        voted = self._vote(taken) if taken else {}
        return [voted.get(key) or refused.get(key, failure) for key in ids]

    def _compact(self) -> None:
        """Copies the split's small files together; what is wrong with them does not keep anybody from an answer."""
        if not self._tidying.acquire(blocking=False):  # another thread is at it
            return
        try:
            compact_partition(self._store, self._partition, (EXAMPLES, RATIONALES, VOTES))
        except StorageError as error:
            self._notice(f"What was passed on could not be copied into fewer files: {one_line(error)}.")
        finally:
            self._tidying.release()

    def _take(self, questions: dict[str, Question]) -> tuple[dict[str, Exception], list[str], date]:
        """Stores new questions, and counts those that the teacher will be asked.

        Returns:
            Those that it cannot be asked, and why; the ids of those that were counted, and on which day.
        """
        with self._budget:
            if self._day != now().date():
                self._day, self._asked, self._spent = now().date(), 0, 0.0
            with self._store.connect() as con:
                con.register("wanted", pa.table({"example_id": pa.array(list(questions), pa.string())}))
                sql = f"SELECT example_id FROM {self._store.relation(EXAMPLES, self._partition)}"
                found = self._store.execute(con, f"{sql} SEMI JOIN wanted USING (example_id)")
            known: list[str] = found["example_id"].to_pylist()
            lacking = {one.question.example_id for one in self._plan(known).requests} if known else set()
            asked = [key for key in questions if key not in known or key in lacking]
            admitted = set(asked if self.left is None else asked[: self.left])
            new = {key: Example(one.question, one.choices) for key, one in questions.items()
                   if key in admitted and key not in known}  # fmt: skip
            stored = store_examples(self._store, self._dataset, PASSED_ON, new.values()).example_ids if new else []
            forgotten = new.keys() - set(stored)
            counted = [key for key in asked if key in admitted and key not in forgotten]
            self._asked += len(counted)
            day = self._day
        most = self._settings.questions_a_day
        over = OverBudget(f"cascade.questions_a_day is {most}, and the teacher was asked as many today")
        gone = UsageError("it was forgotten (`qcrd forget`), and nothing of it is stored any more")
        refused: dict[str, Exception] = {key: over for key in asked if key not in admitted}
        refused |= dict.fromkeys(forgotten, gone)
        return refused, counted, day

    def _give_back(self, counted: Sequence[str], day: date) -> None:
        """Counts those questions of a day no more that got no sample: the next start would not count them, either."""
        if counted:
            sampled = self._sampled(counted, datetime.combine(day, time(), UTC))
            with self._budget:
                if self._day == day:
                    self._asked -= len(counted) - len(sampled)

    def _sampled(self, ids: Sequence[str], since: datetime | None = None) -> list[str]:
        """Those of some questions that have a sample, since a moment."""
        with self._store.connect() as con:
            con.register("wanted", pa.table({"example_id": pa.array(ids, pa.string())}))
            found = self._store.execute(
                con,
                f"SELECT DISTINCT example_id FROM {self._store.relation(RATIONALES, self._partition)} "
                "SEMI JOIN wanted USING (example_id) WHERE $1::TIMESTAMPTZ IS NULL OR created_at >= $1::TIMESTAMPTZ",
                [since],
            )
        return [*found["example_id"].to_pylist()]

    def _vote(self, ids: Sequence[str]) -> dict[str, Voted]:
        """Votes on some questions; those without samples are left out."""
        if not (found := self._sampled(ids)):
            return {}
        vote_on_split(self._store, self._dataset, self._rule, PASSED_ON, among=found)
        rows: list[dict[str, Any]]
        with self._store.connect() as con:
            con.register("wanted", pa.table({"example_id": pa.array(found, pa.string())}))
            rows = self._store.execute(
                con,
                f"SELECT v.example_id, v.winner, v.share, r.rationale FROM "
                f"(SELECT * FROM {self._store.relation(VOTES, self._partition)} SEMI JOIN wanted USING (example_id) "
                f"WHERE vote_id = $1) v LEFT JOIN {self._store.relation(RATIONALES, self._partition)} r "
                "ON r.sample_id = v.positives[1].sample_id",
                [self._rule.vote_id],
            ).to_pylist()
        return {
            row["example_id"]: Voted(row["example_id"], row["winner"], row["rationale"], row["share"]) for row in rows
        }
