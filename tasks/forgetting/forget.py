"""Forgets examples everywhere in a state folder: the order of the steps, each of which may be repeated.

    chosen = plan(home, store, ["0rbweaIrbcik"], where=None)      what would go
    done = forget(home, store, chosen)                            and away

The store's rows go last, because their texts say what to look for in reports and databases. A process may die at any
point; the next call ends its work, too (`storage.forgetting`).
"""

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from storage.checking import SET_ASIDE
from storage.compaction import rewriting
from storage.errors import UsageError
from storage.forgetting import Chosen, Record, begin, choose, end, remove, rows_of, unfinished
from storage.locks import is_held
from storage.store import Store, now
from tasks.forgetting.affected import Affected, affected_by, tags
from tasks.forgetting.quotes import Quotes
from tasks.forgetting.traces import Traces, remove_from_database, remove_from_files
from tasks.running.progress_file import FOLDER as RUNS_FOLDER
from tasks.teacher.batches import forget_in_notes
from tasks.tracking.backend import URI_VARIABLE
from tasks.tracking.forgotten import mark
from tasks.tracking.lineage import Origin
from tasks.training.retention import alone_in, remove_leftovers

PREFECT_URL, PREFECT_HOME = "PREFECT_API_URL", "PREFECT_HOME"
_LEAST_LETTERS = 60
"""Shorter texts than these are shared by many samples; what shows a sample shows its question, too."""


@dataclass(frozen=True)
class Plan:
    """What is to be forgotten.

    Attributes:
        chosen: the examples that are stored.
        unfinished: what an earlier call has begun.
        rows: example -> table -> rows.
        affected: what learned from all of these.
    """

    chosen: list[Chosen]
    unfinished: list[Record]
    rows: dict[str, Counter[str]]
    affected: Affected

    @property
    def ids(self) -> list[str]:
        """The examples' ids."""
        return _ids(self.chosen, self.unfinished)

    def totals(self) -> dict[str, int]:
        """Table -> rows."""
        return dict(sum((Counter(counts) for counts in self.rows.values()), Counter()))


@dataclass(frozen=True)
class Forgot:
    """What was done.

    Attributes:
        examples: ids.
        rows: table -> rows that left it.
        trainings: ids of those that learned from them.
        versions: of registered models, likewise.
        changed, removed: files beside the store from which they were removed, or that were.
        elsewhere: what may still hold them, a sentence each.
    """

    examples: list[str]
    rows: dict[str, int]
    trainings: list[str]
    versions: list[Origin]
    changed: list[Path] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


def plan(home: Path, store: Store, examples: Iterable[str], where: str | None) -> Plan:
    """What is to be forgotten; changes nothing.

    Raises:
        UsageError: there is no such example.
        BadFile: the condition is wrong.
        TrackingFailed: MLflow cannot be asked.
    """
    chosen, left = choose(store, examples, where), unfinished(store)
    ids = _ids(chosen, left)
    begun = {one.example_id: one.trainings for one in left}
    return Plan(chosen, left, rows_of(store, ids), affected_by(home, store, ids, begun))


def forget(home: Path, store: Store, examples: Sequence[str], where: str | None) -> Forgot:
    """Forgets them.

    Raises:
        UsageError: there is no such example; a run, a training or a server is at work in the state folder.
        BadFile, TrackingFailed, DamagedPart, StoreWriteFailed: what was done until then stays so; call it again.
    """
    with rewriting(store), ExitStack() as held:
        _refuse_running(home)
        found = plan(home, store, examples, where)
        _hold(found, held)
        begin(store, _records(found))
        if any(one.example_id not in found.ids for one in choose(store, found.ids, None)):
            # `qcrd answer` stored a copy while the plan was made. From `begin` on nobody can.
            found = plan(home, store, found.ids, None)
            _hold(found, held)
            begin(store, _records(found))
        records = _records(found)
        ids = [one.example_id for one in records]
        moments = {one.example_id: one.forgotten_at for one in records}
        for moment in sorted(set(moments.values())):  # those of an earlier call have theirs
            own = {example for example, when in moments.items() if when == moment}
            learned = {key: one & own for key, one in found.affected.trainings.items() if one & own}
            said = tags(learned, moment.isoformat(timespec="seconds"))
            mark(home, {one: said[one.training] for one in found.affected.versions if one.training in said}, said)
        for training in found.affected.folders:
            training.forget(max(moments.values()))
        remove_leftovers(home)
        batches = forget_in_notes(home / "batches", set(ids))
        quotes = Quotes(_texts(store, ids))
        runs = store.query("SELECT run_id, config FROM runs ORDER BY ALL").to_pylist()
        quoting = [row["run_id"] for row in runs if quotes.in_(row["config"])]
        traces = _remove_traces(home, quotes)
        remove(store, ids)
        end(store, records)
    rows = sum((Counter(one.rows) for one in records), Counter[str]())
    return Forgot(
        ids, dict(rows), sorted({name for one in records for name in one.trainings}), list(found.affected.versions),
        traces.changed, traces.removed, _elsewhere(store, found.affected, traces.named, batches, quoting),
    )  # fmt: skip


def _hold(found: Plan, held: ExitStack) -> None:
    """Keeps everybody else out of the trainings.

    Raises:
        UsageError: somebody is at work in one.
    """
    for training in found.affected.folders:
        if not held.enter_context(alone_in(training.folder)):
            raise UsageError(f"A run works in {training.folder}; stop it, or let it come to its end.")


def _ids(chosen: Sequence[Chosen], left: Sequence[Record]) -> list[str]:
    return sorted({one.example_id for one in chosen} | {one.example_id for one in left})


def _refuse_running(home: Path) -> None:
    for lock in sorted((home / RUNS_FOLDER).glob("*.lock")):
        if is_held(lock):
            raise UsageError(f"Run {lock.stem} is running; stop it first, or let it come to its end.")


def _records(found: Plan) -> list[Record]:
    """What is written down; of an earlier call what it wrote, with what was found since."""
    moment, by_id = now(), {one.example_id: one for one in found.unfinished}
    new = {one.example_id: one for one in found.chosen}
    records = []
    for example in found.ids:
        before, one = by_id.get(example), new.get(example)
        trainings = {key for key, learned in found.affected.trainings.items() if example in learned}
        versions = {one.version for one, learned in found.affected.versions.items() if example in learned}
        if before is not None:
            rows = {**found.rows[example], **before.rows}
            records.append(
                Record(
                    example, before.question_id, before.dataset, before.split, before.chosen_by, rows,
                    sorted(trainings.union(before.trainings)), sorted(versions.union(before.versions)),
                    before.forgotten_at,
                )
            )  # fmt: skip
        elif one is not None:
            records.append(
                Record(
                    example, one.question_id, one.dataset, one.split, one.by, found.rows[example], sorted(trainings),
                    sorted(versions), moment,
                )
            )  # fmt: skip
    return records


def _texts(store: Store, examples: list[str]) -> list[str]:
    """What is looked for elsewhere: the questions, and what was written about them at some length."""
    columns = [("examples", "question", 1)]
    columns += [("rationales", name, _LEAST_LETTERS) for name in ("text", "thought", "rationale")]
    columns += [("predictions", "rationale", _LEAST_LETTERS), ("judgements", "text", _LEAST_LETTERS)]
    columns += [("variants", "question", 1), ("variants", "text", _LEAST_LETTERS)]
    texts: list[str] = []
    for table, column, least in columns:
        found = store.query(
            f"SELECT DISTINCT {column} AS text FROM {table} WHERE length({column}) >= {least} "
            "AND example_id IN (SELECT unnest($1::VARCHAR[]))",
            [examples],
        )
        texts += found["text"].to_pylist()
    return texts


def _remove_traces(home: Path, quotes: Quotes) -> Traces:
    prefect = Path(os.environ.get(PREFECT_HOME) or home / "prefect")
    databases = [prefect / "prefect.db", home / "mlflow" / "mlflow.db", *_configured_database()]
    changed = [file for file in dict.fromkeys(databases) if file.is_file() and remove_from_database(file, quotes)]
    folders = [home / "logs", home / "reports", home / "batches", home / "mlflow" / "artifacts", prefect]
    traces = remove_from_files(folders, quotes, prefect / "storage")
    traces.changed[:0] = changed
    return traces


def _configured_database() -> list[Path]:
    uri = os.environ.get(URI_VARIABLE, "")
    return [Path(uri.removeprefix("sqlite:///"))] if uri.startswith("sqlite:///") else []


def _elsewhere(store: Store, affected: Affected, named: list[Path], batches: int, quoting: list[str]) -> list[str]:
    """What this machine cannot remove, or must not."""
    told = ["your own files (datasets, recordings, exports, reports elsewhere), backups, and a teacher's endpoint"]
    if any(one.spec.config.student.model == "new" for one in affected.folders) and affected.versions:
        names = ", ".join(one.version for one in affected.versions)
        told.append(
            f"students that are registered ({names}): weights, and a tokenizer made from the texts with its words"
        )
    elif affected.versions:
        told.append(f"the weights of {', '.join(one.version for one in affected.versions)}")
    for variable, what in ((URI_VARIABLE, "MLflow's"), (PREFECT_URL, "Prefect's")):
        if os.environ.get(variable, "").startswith(("http", "postgres", "mysql")):
            told.append(f"{what} server: artifacts, examples of input, logs")
    if not store.files.local:
        told.append("earlier versions of objects, if the bucket keeps them")
    if batches:
        told.append(f"batches that a teacher's endpoint has not answered yet ({batches})")
    told += [f"{file}" for file in named]
    told += [f"{store.files.given}/{SET_ASIDE}, damaged files"] if _set_aside(store) else []
    folders = [path for path in Path(tempfile.gettempdir()).glob("qcrd-*") if path.stat().st_uid == os.getuid()]
    if folders:
        told.append(f"temporary folders of processes that were killed or still run ({folders[0].parent}/qcrd-*)")
    told += [f"the configuration of run {run}" for run in quoting]
    return told


def _set_aside(store: Store) -> bool:
    return store.files.local and Path(store.files.absolute(SET_ASIDE)).is_dir()
