"""How a student is asked. It answers and explains in the same way whether it is evaluated or served."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from models.generation import generate
from models.prefixes import EXPLAIN, PREDICT
from models.scoring import log_probabilities
from models.seeds import derived_seed
from models.student import Student
from storage.datasets.definition import Dataset
from storage.datasets.prompts import closing_answer
from tasks.serving.deciding import Candidate, Explained, answers_of, candidates, decide, rationale_for
from tasks.serving.settings import ANSWER_END, REFUSAL, AskingConfig, Decision, Question, Writes

if TYPE_CHECKING:
    from models.discriminator import Discriminator
    from models.judge import Judge


@dataclass(frozen=True)
class Answered:
    """What a student said to one question.

    Attributes:
        answer: its bare answer in the dataset's canonical spelling; None if the student's text is not an answer.
        rationale: its likeliest explanation, without the answer if both are one text; None if it wrote none.
        rationale_answer: the answer that this explanation itself comes to; None if it comes to none.
        too_long: the question is longer than the student reads, so it was not asked.
        refused: it says that it does not know, as `method.abstain_below` trains; then it has no answer, whatever its
            rationales come to.
        rationales: the likeliest explanation, then the sampled ones.
        logs: each answer's log-probability without a rationale, 0 where it follows from one; empty where nobody weighs
            answers.
    """

    answer: str | None = None
    rationale: str | None = None
    rationale_answer: str | None = None
    too_long: bool = False
    refused: bool = False
    rationales: tuple[Explained, ...] = ()
    logs: dict[str, float] = field(default_factory=dict)

    def candidates(self, samples: int | None = None) -> list[Candidate]:
        """The answers to choose from, going by the first `samples` of the sampled rationales; None for all."""
        if self.refused:
            return []
        rationales = self._first(samples)
        known = answers_of(self.answer, rationales)
        return candidates({answer: self.logs[answer] for answer in known}, rationales)

    def decided(self, decision: Decision, samples: int | None = None) -> "Decided":
        """The answer chosen among its bare one and those of its rationales."""
        answer, confidence = decide(self.candidates(samples), decision)
        return Decided(answer, confidence, None if self.refused else rationale_for(answer, self._first(samples)))

    def _first(self, samples: int | None) -> tuple[Explained, ...]:
        return self.rationales if samples is None else self.rationales[: 1 + samples]


@dataclass(frozen=True)
class Decided:
    """What a student answers in the end.

    Attributes:
        answer: None if it has none.
        confidence: the probability that it is right; None without an answer.
        rationale: one that comes to it, if any does.
    """

    answer: str | None
    confidence: float | None
    rationale: Explained | None


def ask(
    dataset: Dataset,
    student: Student,
    questions: Sequence[Question],
    config: AskingConfig,
    on_progress: Callable[[int, int], None] | None = None,
    judge: "Discriminator | Judge | None" = None,
    weigh: bool = False,
) -> list[Answered]:
    """Lets a student answer questions, and explain its answers if it was trained to: its likeliest texts, and
    `config.samples` further rationales, the same ones whenever it is asked the same.

    Args:
        dataset: how a question is put and an answer read.
        student: which one.
        questions: one or many.
        config: what is asked for.
        on_progress: called with (texts written, texts in all).
        judge: scores the rationales; None for nobody.
        weigh: compute what `Answered.candidates` needs, as is done where `config` has decisions.

    Returns:
        One for each question, in their order.
    """
    texts = [dataset.student_input(one.question, one.choices) for one in questions]
    lengths = [len(ids) for ids in student.input_ids([EXPLAIN + text for text in texts])]  # the longer prefix
    fitting = [place for place, length in enumerate(lengths) if length <= student.max_input_tokens]
    texts, choices = [texts[place] for place in fitting], [questions[place].choices for place in fitting]
    writes = config.writes
    answers_apart = writes in ("answer", "answer and rationale")
    explains = writes != "answer"
    samples = config.samples if explains and not config.answers_only else 0
    longest = config.answer_tokens if config.answers_only else student.max_target_tokens
    total, done = (answers_apart + explains + samples) * len(texts), 0

    def written(prefix: str, longest: int, draw: int | None = None) -> list[str]:
        nonlocal done
        before = done
        found = generate(
            student,
            [prefix + text for text in texts],
            max_new_tokens=longest,
            temperature=0.0 if draw is None else config.temperature,
            seeds=None if draw is None else [derived_seed("vote", text, draw) for text in texts],
            batch_size=config.batch_size,
            on_progress=on_progress and (lambda count, _: on_progress(before + count, total)),
        )
        done += len(texts)
        return [one.text for one in found]

    bare: list[Answered] = []
    if answers_apart:
        said = written(PREDICT, config.answer_tokens)
        bare = [_bare(dataset, text, some) for text, some in zip(said, choices, strict=True)]
    columns: list[list[str]] = []
    if explains:
        draws: tuple[int | None, ...] = (None, *range(samples))
        columns = [written(EXPLAIN, longest, draw) for draw in draws]
    read = [[read_text(dataset, writes, column[row], choices[row]) for column in columns] for row in range(len(texts))]
    qualities = qualities_of(judge, texts, [[one.rationale or "" for one in row] for row in read])
    explained = [
        tuple(Explained(one.rationale or "", one.rationale_answer, quality) for one, quality in zip(*row, strict=True))
        for row in zip(read, qualities, strict=True)
    ]
    if not answers_apart:
        bare = [row[0] for row in read]
    known = [answers_of(one.answer, row) for one, row in zip(bare, explained, strict=True)]
    logs: list[list[float]] = [[0.0] * len(row) for row in known]  # after a rationale an answer follows from it
    if weigh or config.decisions:
        if answers_apart:
            logs = log_probabilities(student, [PREDICT + text for text in texts], known)
        elif writes == "answer, then rationale":
            begun = [[answer + ANSWER_END.rstrip() for answer in row] for row in known]
            logs = log_probabilities(student, [EXPLAIN + text for text in texts], begun, end=False)
    found = [Answered(too_long=True)] * len(questions)
    for row, place in enumerate(fitting):
        likeliest = read[row][0] if explains else Answered()
        found[place] = Answered(
            bare[row].answer, likeliest.rationale, likeliest.rationale_answer, refused=bare[row].refused,
            rationales=explained[row], logs=dict(zip(known[row], logs[row], strict=True)),
        )  # fmt: skip
    return found


def read_text(dataset: Dataset, writes: Writes, text: str, choices: tuple[str, ...]) -> Answered:
    """What a student's text under `explain: ` says; its answer where the text holds one beside the rationale's own."""
    if writes == "answer, then rationale":
        before, _, after = text.partition(ANSWER_END.strip())
        rationale = after.strip() or None
        own = dataset.parse(rationale, choices).answer if rationale else None
        return replace(_bare(dataset, before, choices), rationale=rationale, rationale_answer=own)
    parsed = dataset.parse(text, choices)
    if writes == "rationale, then answer":
        closing = closing_answer(text)
        if _refuses(dataset, closing, choices):
            return Answered(rationale=parsed.rationale, refused=True)
        own = parsed.answer if dataset.target is None else read_answer(dataset, closing, choices)
        return Answered(own, parsed.rationale, own)
    return Answered(None, text, parsed.answer)


def qualities_of(
    judge: "Discriminator | Judge | None", texts: Sequence[str], rationales: Sequence[Sequence[str]]
) -> list[list[float | None]]:
    """The quality of each rationale of each question; None without a judge, and for one that is too long for it."""
    scores: list[list[float | None]] = [[None] * len(row) for row in rationales]
    if judge is None:
        return scores
    pairs = [(row, column, text) for row, several in enumerate(rationales) for column, text in enumerate(several)]
    ids = judge.pair_ids([texts[row] for row, _, _ in pairs], [text for _, _, text in pairs])
    fitting = [pair for pair, one in zip(pairs, ids, strict=True) if len(one) <= judge.max_tokens]
    values = judge.score([texts[row] for row, _, _ in fitting], [text for _, _, text in fitting])
    for (row, column, _), value in zip(fitting, values.tolist(), strict=True):
        scores[row][column] = value
    return scores


def _bare(dataset: Dataset, text: str, choices: tuple[str, ...]) -> Answered:
    """What an answer's own text says."""
    refused = _refuses(dataset, text, choices)
    return Answered(None if refused else read_answer(dataset, text, choices), refused=refused)


def _refuses(dataset: Dataset, text: str, choices: tuple[str, ...]) -> bool:
    """Whether a text is the refusal, and that is none of the answers."""
    said = text.strip().rstrip(".").casefold()
    return said == REFUSAL.casefold() and dataset.normalise(REFUSAL, choices) is None


def read_answer(dataset: Dataset, text: str, choices: tuple[str, ...]) -> str | None:
    """A student's bare answer in its canonical spelling; a text that says more is read like a teacher's.

    Where a student writes something else than the label, such as an equation, its text is that or no answer.
    """
    answer = dataset.normalise(text.strip(), choices)
    return answer if answer is not None or dataset.target is not None else dataset.parse(text, choices).answer
