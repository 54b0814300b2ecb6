"""What Prefect's UI shows of a distillation: votes, rounds, rationales, the final table; and lines for the log.

Texts of datasets, teachers and students are data: they are escaped wherever they go into markdown.
"""

import html
import json
import re
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.runtime import flow_run

from flows.prefect.own_server import has_configured_server
from flows.results import DistillResult
from flows.terminal import figure, inert
from flows.vote_figures import vote_rows
from storage.addresses import without_password
from storage.schemas import EXAMPLES, PREDICTIONS, RATIONALES, VOTES
from storage.vote_summary import VoteSummary
from storage.votes import VoteRule
from tasks.running.workspace import Workspace
from tasks.steps.teacher import Sampled
from tasks.training.folder import Training
from tasks.training.outcomes import Evaluation, Prepared
from tasks.training.rounds import best_round
from tasks.training.spec import TrainingSpec
from tasks.training.summary import round_rows

NOTE = "mlflow.note.content"
"""MLflow's tag of a run's description, in markdown."""
SHOWN, LONGEST_SHOWN = 5, 2000
"""How many questions are shown with rationales, and the most characters of each text."""
_MARKUP = re.compile(r"[\\`*_{}\[\]()#+\-.!|~:@=]")


def prefect_tags() -> dict[str, str]:
    """Prefect's ids and address of this run, for MLflow."""
    tags = {"prefect.flow_run_id": str(flow_run.id), "prefect.flow_run_name": str(flow_run.name)}
    address = _address()
    return tags | ({"prefect.url": without_password(address)} if address else {})


def prefect_note() -> dict[str, str]:
    """A link to this run as the description of a run in MLflow, whose pages show other tags as plain text."""
    address = _address()
    return {NOTE: f"Prefect: [{escaped(flow_run.name)}]({address})"} if address else {}


def _address() -> str:
    """The URL of this run's page; empty on a command's own server, which has no pages."""
    return str(flow_run.ui_url) if has_configured_server() else ""


def show_votes(rule: VoteRule, votes: VoteSummary, sampled: Sampled) -> None:
    """The vote's figures as a table."""
    rows = vote_rows(votes)
    if sampled.sampled:
        tokens = sampled.completion_tokens
        speed = "tokens unknown" if tokens is None else f"{tokens / max(sampled.seconds, 1e-9):,.0f} tokens/s"
        rows.append(("teacher", speed, f"{sampled.sampled:,} samples in {sampled.seconds:,.0f} s"))
    if sampled.cost is not None:
        rows.append(("cost", f"{sampled.cost:,.4f}", "of this run's samples"))
    shown = [{"figure": name, "value": value, "of": escaped(of)} for name, value, of in rows]
    query = f"qcrd show votes --dataset {rule.dataset} --vote {rule.vote_id}"
    create_table_artifact(shown, key="votes", description=f"Vote {rule.vote_id}; read it with `{query}`")


def show_teacher(workspace: Workspace, rule: VoteRule, split: str) -> None:
    """Shows some questions with what the teacher said."""
    create_markdown_artifact(
        teacher_markdown(workspace, rule, split),
        key="rationales-teacher",
        description=f"{SHOWN} questions: the majority answer, a positive and a negative rationale",
    )


def teacher_markdown(workspace: Workspace, rule: VoteRule, split: str) -> str:
    """Questions with the majority answer, a positive and a negative rationale; those that have both come first."""
    store, partition = workspace.open_store(), {"dataset": rule.dataset, "split": split}
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT e.question, e.label, v.winner, v.n_votes, v.n_parsed, v.share, "
            f"v.positives[1].sample_id AS positive, v.negatives[1].sample_id AS negative "
            f"FROM {store.relation(VOTES, partition)} v "
            f"JOIN {store.relation(EXAMPLES, partition)} e USING (example_id) WHERE v.vote_id = $1 "
            f"ORDER BY len(v.positives) > 0 AND len(v.negatives) > 0 DESC, md5(v.example_id) LIMIT {SHOWN}",
            [rule.vote_id],
        ).to_pylist()
        ids = [row[kind] for row in rows for kind in ("positive", "negative") if row[kind]]
        samples = store.execute(
            con,
            f"SELECT sample_id, answer, rationale FROM {store.relation(RATIONALES, partition)} "
            "WHERE list_contains($1, sample_id)",
            [ids],
        ).to_pylist()
    said = {sample["sample_id"]: sample for sample in samples}
    lines = ["# What the teacher said"]
    for row in rows:
        votes = f"{row['n_votes']} of {row['n_parsed']} votes"
        share = "" if row["share"] is None else f", {row['share']:.0%}"
        lines += [
            f"\n**{escaped(row['question'])}** (label: {escaped(row['label'])})\n",
            f"- majority: {escaped(row['winner'])} — {votes}{share}",
        ]
        for kind in ("positive", "negative"):
            sample = said.get(row[kind])
            told = f"{escaped(sample['answer'])} — {escaped(sample['rationale'])}" if sample else "none"
            lines.append(f"- {kind}: {told}")
    return "\n".join(lines)


class RoundsTable:
    """A training's rounds as a table that grows with each of them.

    Args:
        prepared: the training.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared, self.training = prepared, Training(prepared.folder)
        self._artifact: UUID | None = None

    def show(self, *, over: bool = False) -> None:
        """Shows the rounds that are finished."""
        config, results, rows = self.prepared.spec.config, self.training.evaluations(), round_rows(self.training)
        shown = [{name: _of_round(name, value) for name, value in row.items()} for row in rows]
        best = f"the best round is {best_round(results)}"
        state = best if over else f"{len(results)} of at most {config.rounds.rounds} rounds so far; {best}"
        description = f"{self.prepared.name}: {state}"
        if self._artifact is None:
            made = create_table_artifact(shown, key=f"rounds-{config.method.name}", description=description)
            self._artifact = cast(UUID, made)
            return
        with get_client(sync_client=True) as client:
            client.update_artifact(self._artifact, ArtifactUpdate(data=json.dumps(shown), description=description))


def round_line(method: str, result: Evaluation) -> str:
    """A round in one line."""
    line = f"{method} round {result.t}: validation {result.given_accuracy:.1%}"
    if result.explanation_accuracy is not None:
        line += f" (bare answers {result.accuracy:.1%})" if result.decided else ""
        line += f", explanations {result.explanation_accuracy:.1%}"
    return line


def show_method(workspace: Workspace, prepared: Prepared, best: int, url: str | None) -> None:
    """Rationales early and late, and a link to MLflow."""
    method = prepared.spec.config.method.name
    create_markdown_artifact(
        rationales_markdown(workspace, prepared.spec, best),
        key=f"rationales-{method}",
        description=f"{SHOWN} questions: what the student said after round 0 and after round {best}",
    )
    if url:
        create_link_artifact(url, link_text=f"{prepared.name} in MLflow", key=f"mlflow-{method}")


def rationales_markdown(workspace: Workspace, spec: TrainingSpec, best: int) -> str:
    """What the student explained after the first round and after the best one, on some validation questions."""
    store = workspace.open_store()
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT e.question, e.label, early.answer AS early_answer, early.rationale AS early_rationale, "
            f"late.answer AS late_answer, late.rationale AS late_rationale "
            f"FROM {spec.validation.sql(store)} e JOIN {store.relation(PREDICTIONS, spec.validation.partition)} early "
            f"ON early.example_id = e.example_id AND early.model = $1 "
            f"JOIN {store.relation(PREDICTIONS, spec.validation.partition)} late "
            f"ON late.example_id = e.example_id AND late.model = $2 ORDER BY md5(e.example_id) LIMIT {SHOWN}",
            [spec.student_name(0), spec.student_name(best)],
        ).to_pylist()
    lines = [f"# {spec.name}: after round 0, and after round {best}"]
    for row in rows:
        lines += [
            f"\n**{escaped(row['question'])}** (label: {escaped(row['label'])})\n",
            f"- round 0: {escaped(row['early_answer'])} — {escaped(row['early_rationale'])}",
            f"- round {best}: {escaped(row['late_answer'])} — {escaped(row['late_rationale'])}",
        ]
    return "\n".join(lines)


def show_result(result: DistillResult) -> None:
    """The final table."""
    lines = [*comparison_lines(result), *abstention_lines(result)]
    if result.registered:
        lines.append(escaped(f"{result.registered.name}: {result.registered.reason}"))
    create_table_artifact(result_rows(result), key="result", description="\n\n".join(lines) or None)


def result_rows(result: DistillResult) -> list[dict[str, str]]:
    """The final table: one row per method; narrow enough for a terminal of 80 columns. `round` is the best one, `bare`
    the accuracy of bare answers."""
    rows = []
    for one in result.methods:
        validation = _percent(one.rounds[one.best].given_accuracy)
        row = {"method": one.method, "round": f"{one.best} of {len(one.rounds)}", "validation": validation}
        if one.test and one.test_interval:
            low, high = one.test_interval
            row |= {
                "test": _percent(one.test.given_accuracy),
                "95 % interval": f"{_percent(low)} - {_percent(high)}",
                "bare": _percent(one.test.accuracy),
                "explanations": _percent(one.test.explanation_accuracy),
            }
        rows.append(row | {"seconds": f"{one.seconds:,.0f}"})
    return rows


def comparison_lines(result: DistillResult) -> list[str]:
    """The method compared with the others, in one line each."""
    return [
        f"{result.methods[0].method} - {other.method}: {100 * other.difference:+.1f} points "
        f"(95 % interval {100 * other.low:+.1f} to {100 * other.high:+.1f}; exact McNemar p = {other.p_value:.2g})"
        for other in result.compared
    ]


def abstention_lines(result: DistillResult) -> list[str]:
    """Coverage and risk of each method whose student abstains, on the test questions."""
    lines = []
    for one in result.methods:
        found = one.test.abstention if one.test else None
        if found is None:
            continue
        promise = found.promise
        if promise and not promise.certified:
            lines.append(f"{one.method} abstains from every question: {promise.told}")
            continue
        wrong = (
            f"{_percent(found.risk)} of these wrongly ({_between(found.risk_interval)})"
            if found.answered
            else "so nothing wrongly"
        )
        lines.append(
            f"{one.method} answers {_percent(found.coverage)} of the test questions "
            f"({_between(found.coverage_interval)}), {wrong}; "
            + (
                f"promised with {promise.certainty:.0%} certainty: at most {promise.risk:.1%}"
                if promise
                else "nothing is promised"
            )
            + " (95 % intervals)"
        )
    return lines


def _between(interval: tuple[float, float]) -> str:
    return f"{_percent(interval[0])} - {_percent(interval[1])}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def escaped(text: str | None) -> str:
    """Somebody else's text on one line, with nothing in it that markdown, HTML or a terminal would act on.

    With backslashes if possible, because Prefect's pages decode only the commonest HTML character references.
    """
    if text is None:
        return "-"
    text = " ".join(text.split())
    shortened = text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"
    return _MARKUP.sub(r"\\\g<0>", html.escape(inert(shortened), quote=False))


def _of_round(name: str, value: Any) -> str:
    """A cell of the rounds' table."""
    return _percent(value) if name in ("validation", "bare answers", "explanations", "consistency") else figure(value)
