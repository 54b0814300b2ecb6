"""The page of questions, samples and votes: one HTML file for a browser, without any server.

The questions are data in the page, and `votes.js` beside this file shows a few of them at a time.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.report.document import data_block, document, escaped, json_row
from flows.terminal import percent
from flows.vote_figures import rule_text
from models.folders import whole_file
from storage.datasets.arithmetic_steps import miscalculates
from storage.datasets.definition import Dataset
from storage.datasets.prompts import letter_of
from storage.errors import NothingToDo, StoreWriteFailed
from storage.store import Store
from storage.voted import VotedFigures, Wanted, voted_figures, voted_questions

QUESTIONS = 5000
"""Questions on a page, unless somebody asks for another number."""
BYTES = 64_000_000
"""What a page holds at most, in bytes of its questions as JSON; with more, browsers grow slow."""
SCRIPT = Path(__file__).with_name("votes.js").read_text(encoding="utf-8")
STYLE = """
.controls { display: flex; flex-wrap: wrap; align-items: end; gap: .6rem 1.2rem; margin: 1.2rem 0 .6rem;
  padding: .8rem 1rem; border: 1px solid var(--line); border-radius: 6px; }
fieldset { border: 0; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: .1rem 1rem; min-width: 0; }
legend, .over { display: block; padding: 0; color: var(--soft); font-size: .88rem; }
input, select, button { font: inherit; color: inherit; }
input[type=search] { width: 100%; max-width: 26rem; padding: .25rem .5rem; }
label.search { flex: 1 1 16rem; }
button { padding: .2rem .8rem; cursor: pointer; } button:disabled { cursor: default; }
:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
nav { display: flex; flex-wrap: wrap; align-items: center; gap: .4rem .8rem; margin: .6rem 0; }
article { border-top: 2px solid var(--ink); padding: .4rem 0 1rem; overflow-wrap: anywhere; }
article dl { margin: .5rem 0; grid-template-columns: 6rem 1fr; } article dl, .sample { max-width: 56rem; }
.asked { font-weight: 600; max-width: 56rem; } .choices { list-style: none; padding-left: 1rem; margin: .2rem 0; }
.sample { padding: .3rem 0; } .sample + .sample { border-top: 1px solid var(--line); }
.sample p { margin: .2rem 0; max-width: none; }
.sample small { color: var(--soft); } .sample .mark { white-space: normal; }
.mark { background: #e8e8e8; color: #333; }
@media (max-width: 30rem) { body { padding: 0 .8rem; } }
@media print { .controls, nav button { display: none; } article details { break-inside: auto; border: 0; padding: 0; }
  .sample { break-inside: avoid; } }
"""
MAJORITY = {
    "any": "any", "right": "right", "wrong": "wrong", "tie": "a tie", "none": "no answer", "unknown": "no label",
}  # fmt: skip
WITH = {"unparsed": "one without an answer", "miscalculated": "one with wrong arithmetic"}


@dataclass(frozen=True)
class Page:
    """A page that was written.

    Attributes:
        file: where.
        vote_id: the vote that counted.
        questions: questions on it.
        left_out: wanted questions that are not.
    """

    file: str
    vote_id: str
    questions: int
    left_out: int


def write_page(store: Store, dataset: Dataset, wanted: Wanted, file: Path) -> Page:
    """Writes the page, whole or not at all; a file that is there is replaced.

    Args:
        wanted: which questions; without a limit, QUESTIONS.

    Raises:
        NothingToDo: no question is wanted.
        StoreWriteFailed: the file cannot be written.
        DamagedPart: a part file cannot be read.
    """
    figures = voted_figures(store, dataset.name, wanted)
    rows: list[str] = []
    rule, size = "", 0
    for question in voted_questions(store, dataset, replace(wanted, limit=wanted.limit or QUESTIONS)):
        rule = question["rule"]
        row = json_row(_row(question))
        size += len(row.encode())
        if rows and size > BYTES:
            break
        rows.append(row)
    if not rows or wanted.vote_id is None:
        raise NothingToDo(f"No votes of {dataset.name!r} are like that, so there is nothing to show.")
    title = f"{dataset.name}: questions and votes"
    told = _lead(dataset.name, figures) + _note(wanted.vote_id, rule) + _cap(len(rows), figures.questions, size > BYTES)
    body = (
        f"<h1>{escaped(title)}</h1>{told}"
        "<noscript><p><b>This page shows its questions with a script of its own, which is switched off here.</b></p>"
        f"</noscript>{_controls()}<nav>{_steps()}<span id='status' role='status'></span></nav>"
        f"<main id='questions'></main><nav>{_steps()}</nav>{data_block('data', rows)}"
    )
    try:
        with whole_file(file) as partial:
            partial.write_text(document(title, body, SCRIPT, STYLE), encoding="utf-8")
    except OSError as error:
        raise StoreWriteFailed(f"The page {file} cannot be written: {error.strerror or error}.") from error
    return Page(str(file), wanted.vote_id, len(rows), figures.questions - len(rows))


def _row(question: dict[str, Any]) -> dict[str, Any]:
    """A question as the script reads it."""
    samples = [_sample(sample) for sample in question["samples"]]
    voting = [sample["answer"] for sample in question["samples"] if sample["votes"] and sample["answer"] is not None]
    return {
        "id": question["example_id"],
        **{name: question[name] for name in ("split", "question", "choices", "label", "winner", "share", "tie")},
        "letters": [letter_of(place) for place in range(len(question["choices"]))],
        "votes": question["n_votes"],
        "voters": question["n_parsed"],
        "tally": [list(pair) for pair in Counter(voting).most_common()],
        "correct": question["correct"],
        "unparsed": question["n_parsed"] + (question["n_miscalculated"] or 0) < question["n_sampled"],
        "miscalculated": any(sample["miscalculated"] for sample in samples),
        "outdated": question["outdated"],
        "samples": samples,
    }


def _sample(sample: dict[str, Any]) -> dict[str, Any]:
    # Where no answer was read, people want to see all that was there to read.
    text = sample["rationale"] if sample["answer"] is not None else sample["text"]
    return {
        "side": sample["standing"].side,
        "words": sample["standing"].words.replace(" x", " ×") if sample["standing"].side else sample["standing"].words,
        **{name: sample[name] for name in ("answer", "correct", "model", "score")},
        "index": sample["sample_index"],
        "text": text or sample["text"] or "",
        "miscalculated": sample["votes"] is not None and miscalculates(sample["rationale"] or ""),
        "cut": sample["finish_reason"] == "length",
    }


def _lead(dataset: str, figures: VotedFigures) -> str:
    right = ""
    if figures.labelled:
        share = percent(figures.right / figures.labelled)
        right = f" The majority is right on {figures.right:,} of {figures.labelled:,} labelled questions ({share})."
    return (
        f"<p class='lead'>{figures.questions:,} questions of <b>{escaped(dataset)}</b>, voted on by "
        f"{figures.samples:,} samples.{right} Ties: {figures.ties:,}; questions without a majority answer: "
        f"{figures.none:,}; samples without an answer: {figures.unparsed:,}.</p>"
    )


def _note(vote_id: str, rule: str) -> str:
    return (
        f"<p class='note'>Vote {escaped(vote_id)}: {escaped(rule_text(rule))}. A <i>positive</i> is what a student "
        "learns from, a <i>negative</i> what it is pushed off; equal texts count once, with how often they were "
        "sampled. <i>Wrong arithmetic</i> marks a sample that writes a wrong calculation, such as 2 + 2 = 5; whether "
        "it votes all the same is the rule's <code>check_arithmetic</code>.</p>"
    )


def _cap(shown: int, wanted: int, full: bool) -> str:
    if shown == wanted:
        return ""
    why = (
        f"a page holds at most {BYTES // 1_000_000} MB of texts"
        if full
        else "<code>--limit</code> takes another number; <code>--only</code> and <code>--split</code> choose"
    )
    return (
        f"<p><b>Shown are {shown:,} of {wanted:,} questions</b>, the first by split and id; ids are hashes, so "
        f"within a split the choice is random ({why}).</p>"
    )


def _controls() -> str:
    majority = "".join(_majority(name, words) for name, words in MAJORITY.items())
    samples = "".join(
        f"<label><input type='checkbox' id='{name}'> {words} (<span id='n-{name}'></span>)</label>"
        for name, words in WITH.items()
    )
    sizes = "".join(f"<option value='{size}'>{size} a page</option>" for size in (20, 100, 500))
    return (
        "<div class='controls'>"
        "<label class='search'><span class='over'>Search questions, answers and rationales</span>"
        "<input type='search' id='search'></label>"
        f"<fieldset><legend>Majority</legend>{majority}</fieldset>"
        f"<fieldset><legend>Samples</legend>{samples}</fieldset>"
        "<label><span class='over'>Order</span><select id='order'><option value='id'>by id</option>"
        "<option value='share'>least agreed first</option></select></label>"
        f"<label><span class='over'>Questions</span><select id='size'>{sizes}</select></label>"
        "<button type='button' id='open'>Open all samples</button></div>"
    )


def _majority(name: str, words: str) -> str:
    checked = " checked" if name == "any" else ""
    return (
        f"<label><input type='radio' name='majority' value='{name}'{checked}> {words} "
        f"(<span id='n-{name}'></span>)</label>"
    )


def _steps() -> str:
    return "".join(
        f"<button type='button' data-step='{step}'>{words}</button>" for step, words in ((-1, "Back"), (1, "Next"))
    )
