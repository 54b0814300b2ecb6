"""What people see of a distillation in Prefect's UI: votes, rounds, rationales, the final table; and lines for logs.

Texts of datasets, teachers and students are data: they are escaped wherever they go into markdown.
"""

import html
import re
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run

from flows.outcome import Compared, DistillResult, MethodResult, RegisteredResult
from flows.terminal import inert
from storage.addresses import without_password
from storage.schemas import PREDICTIONS
from storage.votes import VoteRule, VoteSummary
from tasks.gate import exact_mcnemar, judge, wilson_interval
from tasks.steps import Place, Sampled
from tasks.tracking import LoggedRound
from tasks.training.evaluation import Evaluation
from tasks.training.preparing import Parts, Prepared
from tasks.training.rounds import evaluations
from tasks.training.spec import TrainingSpec, read_spec
from tasks.training.summary import round_rows

SHOWN, LONGEST_SHOWN = 5, 2000
"""Questions whose rationales a person can read, and characters of each text."""
_MARKUP = re.compile(r"[\\`*_{}\[\]()#+\-.!|~:@=]")


def prefect_tags() -> dict[str, str]:
    """Prefect's ids and address of this run, for MLflow."""
    tags = {"prefect.flow_run_id": str(flow_run.id), "prefect.flow_run_name": str(flow_run.name)}
    address = str(flow_run.ui_url or "")
    return tags | ({"prefect.url": without_password(address)} if address.startswith("http") else {})


def show_votes(rule: VoteRule, votes: VoteSummary, sampled: Sampled) -> None:
    """The vote's figures as a table."""
    rows = [{"figure": name, "value": _plain(value)} for name, value in vars(votes).items() if name != "vote_id"]
    if sampled.sampled:
        rows.append(
            {"figure": "tokens/s of the teacher", "value": f"{sampled.completion_tokens / sampled.seconds:,.0f}"}
        )
    if sampled.cost is not None:
        rows.append({"figure": "cost", "value": f"{sampled.cost:,.4f}"})
    query = f"qcrd show votes --dataset {rule.dataset} --vote {rule.vote_id}"
    create_table_artifact(rows, key="votes", description=f"Vote {rule.vote_id}; read it with `{query}`")


def round_line(method: str, result: Evaluation) -> str:
    """A round in one line."""
    line = f"{method} round {result.t}: validation {result.accuracy:.1%}"
    if result.explanation_accuracy is not None:
        line += f", explanations {result.explanation_accuracy:.1%}"
    return line


def show_method(
    place: Place,
    method: str,
    prepared: Prepared,
    best: int,
    test: Evaluation | None,
    logged: LoggedRound,
    url: str | None,
) -> MethodResult:
    """The rounds as a table, rationales early and late, a link to MLflow; and the method's result."""
    folder, rows = prepared.folder, round_rows(prepared.folder)
    shown = [{name: _plain(value) for name, value in row.items()} for row in rows]
    create_table_artifact(shown, key=f"rounds-{method}", description=f"{prepared.name}: the best round is {best}")
    create_markdown_artifact(rationales_markdown(place, read_spec(folder), best), key=f"rationales-{method}")
    if url:
        create_link_artifact(url, link_text=f"{prepared.name} in MLflow", key=f"mlflow-{method}")
    return MethodResult(
        method=method,
        training_id=prepared.training_id,
        student=prepared.name,
        folder=folder,
        parameters=prepared.parameters,
        rounds=evaluations(folder),
        best=best,
        test=test,
        test_interval=wilson_interval(test.correct, test.questions) if test else None,
        seconds=sum(row["seconds"] for row in rows),
        mlflow_run=logged.training,
        mlflow_round=logged.run_id,
        mlflow_model=logged.model_id,
        mlflow_url=url,
    )


def rationales_markdown(place: Place, spec: TrainingSpec, best: int) -> str:
    """What the student explained after the first round and after the best one, on some validation questions."""
    store = place.open_store()
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


def show_result(
    place: Place, parts: Parts, sampled: Sampled, votes: VoteSummary, trained: list[MethodResult],
    registered: RegisteredResult | None,
) -> DistillResult:  # fmt: skip
    """The final table, and the flow's result."""
    answers = [_test_answers(place, parts, result) for result in trained]
    result = DistillResult(
        run_id=place.run_id,
        sampled=sampled,
        votes={name: value for name, value in vars(votes).items() if value is not None},
        methods=trained,
        compared=[compared(answers[0], other, one.method) for one, other in zip(trained[1:], answers[1:], strict=True)]
        if parts.test
        else [],
        registered=registered,
    )
    lines = comparison_lines(result) + ([escaped(f"{registered.name}: {registered.reason}")] if registered else [])
    create_table_artifact(result_rows(result), key="result", description="\n\n".join(lines) or None)
    return result


def result_rows(result: DistillResult) -> list[dict[str, str]]:
    """The final table: a row a method."""
    rows = []
    for one in result.methods:
        validation = _percent(one.rounds[one.best].accuracy)
        row = {"method": one.method, "best round": f"{one.best} of {len(one.rounds)}", "validation": validation}
        if one.test and one.test_interval:
            low, high = one.test_interval
            row |= {
                "test": _percent(one.test.accuracy),
                "95 % interval": f"{_percent(low)} - {_percent(high)}",
                "explanations": _percent(one.test.explanation_accuracy),
            }
        rows.append(row | {"seconds": f"{one.seconds:,.0f}"})
    return rows


def comparison_lines(result: DistillResult) -> list[str]:
    """The method against the others, a sentence each."""
    return [
        f"{result.methods[0].method} - {other.method}: {100 * other.difference:+.1f} points "
        f"(95 % interval {100 * other.low:+.1f} to {100 * other.high:+.1f}; exact McNemar p = {other.p_value:.2g})"
        for other in result.compared
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def compared(first: dict[str, bool], other: dict[str, bool], method: str) -> Compared:
    """The first method's answers against another's, by an exact McNemar test (`tasks.gate`)."""
    verdict = judge(first, other)
    return Compared(
        method=method,
        difference=verdict.difference or 0.0,
        low=verdict.low or 0.0,
        high=verdict.high or 0.0,
        p_value=exact_mcnemar(verdict.only_challenger, verdict.only_champion),
    )


def _test_answers(place: Place, parts: Parts, result: MethodResult) -> dict[str, bool]:
    if parts.test is None:
        return {}
    store = place.open_store()
    with store.connect() as con:
        rows = store.execute(
            con,
            f"SELECT example_id, correct FROM {store.relation(PREDICTIONS, parts.test.partition)} "
            f"SEMI JOIN {parts.test.sql(store)} USING (example_id) WHERE model = $1",
            [f"{result.student}@{result.best}"],
        ).to_pylist()
    return {row["example_id"]: row["correct"] for row in rows}


def escaped(text: str | None) -> str:
    """Somebody else's text on one line, with nothing in it that markdown, HTML or a terminal would act on.

    By backslashes where possible: Prefect's pages turn only the commonest of HTML's character references back.
    """
    if text is None:
        return "-"
    text = " ".join(text.split())
    shortened = text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"
    return _MARKUP.sub(r"\\\g<0>", html.escape(inert(shortened), quote=False))


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(escaped(str(one)) for one in value)  # cells are read as markdown
    return f"{value:,}" if isinstance(value, int) else str(value)
