"""What a teacher is still to be asked: what is wanted, less what is stored.

Every sample's id follows from its request, so what is missing is what is not stored, and no progress file is needed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa

from models.seeds import request_seed
from models.teacher import SamplingConfig, TeacherRequest
from storage.datasets.definition import Dataset
from storage.errors import NothingToDo
from storage.ids import prompt_hash, teacher_sample_id
from storage.schemas import EXAMPLES, RATIONALES
from storage.store import Store
from tasks.teacher.stopping import Asking


@dataclass(frozen=True)
class TeacherIdentity:
    """Which teacher the samples come from, as stored in every row.

    Attributes:
        model: its name.
        revision: fingerprint of a local model folder; None for an endpoint.
    """

    model: str
    revision: str | None = None


@dataclass(frozen=True)
class PlannedRequest:
    """One request still to be made: samples `first_index` .. `first_index + n - 1` of one question."""

    request: TeacherRequest
    question: "AskedQuestion"
    first_index: int

    @property
    def sample_ids(self) -> list[str]:
        """Those of its samples."""
        return self.question.sample_ids[self.first_index : self.first_index + self.request.n]


@dataclass(eq=False)
class AskedQuestion:
    """A question, and how far it has been asked.

    Attributes:
        prompt: for its first sample alone; the requests follow from it.
        prompt_hash: of what the teacher is shown.
        run_seed: another one gives other samples.
        sample_ids: of all samples that may be made.
        answers: index -> answer of each sample that is there; None where none could be read.
        asked: indices of the samples that requests were made for.
    """

    example_id: str
    choices: tuple[str, ...]
    prompt: TeacherRequest
    prompt_hash: str
    run_seed: int
    sample_ids: list[str]
    answers: dict[int, str | None]
    asked: set[int] = field(default_factory=set)

    def wanted(self, asking: Asking) -> int:
        """How many samples there should be, as far as those tell that are there without a gap."""
        there: list[str | None] = []
        while len(there) in self.answers:
            there.append(self.answers[len(there)])
        return asking.wanted(there)

    def requests(self, wanted: int) -> list[PlannedRequest]:
        """Requests for what its first `wanted` samples lack, each sample once: one for each run of indices."""
        missing = [index for index in range(wanted) if index not in self.answers and index not in self.asked]
        self.asked.update(missing)
        # index - place is constant along a run of consecutive indices
        runs = groupby(enumerate(missing), key=lambda placed: placed[1] - placed[0])
        return [self._request([index for _, index in run]) for _, run in runs]

    def _request(self, indices: list[int]) -> PlannedRequest:
        first = indices[0]
        request = TeacherRequest(
            request_id=f"{self.example_id}/{first}",
            plain=self.prompt.plain,
            messages=self.prompt.messages,
            stop=self.prompt.stop,
            n=len(indices),
            seed=request_seed(self.example_id, self.run_seed, first),
        )
        return PlannedRequest(request, self, first)


@dataclass(frozen=True)
class SamplingPlan:
    """What is still to be sampled.

    Attributes:
        examples: selected questions.
        samples: samples wanted in all, stored ones included; where answers decide about it, as far as can be told.
        stored: those of them that are stored already.
        requests: what is missing, in the order of the questions.
        asking: how often a question is asked.
    """

    examples: int
    samples: int
    stored: int
    requests: list[PlannedRequest]
    asking: Asking

    @property
    def missing(self) -> int:
        """Samples still to be made."""
        return self.samples - self.stored


def plan_sampling(
    store: Store,
    dataset: Dataset,
    split: str,
    example_ids: Iterable[str],
    teacher: TeacherIdentity,
    sampling: SamplingConfig,
    run_seed: int,
    asking: Asking | None = None,
) -> SamplingPlan:
    """Compares what is wanted with what is stored.

    Args:
        asking: how often a question is asked; None: `sampling.n` times.

    Raises:
        NothingToDo: no example is selected.
        DamagedPart: what is stored cannot be read.
    """
    asking = asking or Asking(sampling.n, sampling.n)
    partition = {"dataset": dataset.name, "split": split}
    wanted = list(example_ids)
    if not wanted:
        raise NothingToDo(f"No questions of {dataset.name!r}, split {split!r}, are selected; nothing to sample.")
    with store.connect() as con:
        con.register("wanted", pa.table({"example_id": wanted, "place": range(len(wanted))}))
        rows = store.execute(
            con,
            f"SELECT example_id, question, choices FROM {store.relation(EXAMPLES, partition)} "
            "JOIN wanted USING (example_id) ORDER BY place",
        ).to_pylist()
        samples = store.execute(
            con,
            f"SELECT sample_id, answer FROM {store.relation(RATIONALES, {**partition, 'source': 'teacher'})} "
            "SEMI JOIN wanted USING (example_id)",
        )
    answers = dict(zip(samples["sample_id"].to_pylist(), samples["answer"].to_pylist(), strict=True))
    requests: list[PlannedRequest] = []
    in_all = missing = 0
    for row in rows:
        question = _question(dataset, row, teacher, sampling, run_seed, asking.most, answers)
        enough = question.wanted(asking)
        planned = question.requests(enough)
        in_all += enough
        missing += sum(request.request.n for request in planned)
        requests += planned
    return SamplingPlan(len(rows), in_all, in_all - missing, requests, asking)


def _question(
    dataset: Dataset,
    row: dict[str, Any],
    teacher: TeacherIdentity,
    sampling: SamplingConfig,
    run_seed: int,
    most: int,
    answers: dict[str, str | None],
) -> AskedQuestion:
    """A question as this teacher is asked it. `answers` are those of all stored samples by id."""
    choices = tuple(row["choices"])
    prompt = dataset.teacher_prompt(row["question"], choices)
    messages, plain = prompt.messages(), prompt.plain
    stop = prompt.stop if sampling.api == "completions" else ()
    hashed = prompt_hash([sampling.api, messages if sampling.api == "chat" else plain, stop])
    identity = {
        "example": row["example_id"],
        "model": teacher.model,
        "revision": teacher.revision,
        "prompt": hashed,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": run_seed,
    }
    # A field that is left out says how the endpoint is asked, not what is sampled.
    if extra := {name: value for name, value in sampling.extra_body.items() if value is not None}:
        identity["extra_body"] = extra
    ids = [teacher_sample_id(identity, index) for index in range(most)]
    return AskedQuestion(
        row["example_id"], choices, TeacherRequest(row["example_id"], plain, messages, stop, 1, run_seed), hashed,
        run_seed, ids, {index: answers[id_] for index, id_ in enumerate(ids) if id_ in answers},
    )  # fmt: skip
