"""Reports the gate's decision: to people, a page in Prefect's UI; to automations, events.

    qcrd.champion.promoted    the champion changed
    qcrd.champion.kept        the champion stayed
    qcrd.quality.dropped      the challenger is worse than the champion: its 95 % interval lies wholly below 0

An event's resource is `qcrd.model.<name>`; related are the flow run and its deployment; its payload holds the figures.
"""

from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from flows.prefect.report import escaped
from tasks.tracking.gate import Verdict
from tasks.tracking.registry import Registered

PROMOTED, KEPT, DROPPED = "qcrd.champion.promoted", "qcrd.champion.kept", "qcrd.quality.dropped"
MODEL = "qcrd.model"


def show_verdict(challenger: Registered, verdict: Verdict) -> None:
    """Shows the verdict as a page and emits its events; there are none if the challenger was champion already."""
    create_markdown_artifact(
        verdict_markdown(challenger, verdict), key="gate", description=escaped(_decision(challenger, verdict))
    )
    already = verdict.promoted and not verdict.moved
    names = [] if already else [PROMOTED if verdict.moved else KEPT]
    if verdict.dropped:
        names.append(DROPPED)
    for name in names:
        emit_event(
            name,
            resource={"prefect.resource.id": f"{MODEL}.{challenger.name}", "prefect.resource.name": challenger.name},
            payload=payload(challenger, verdict),
        )


def payload(challenger: Registered, verdict: Verdict) -> dict[str, Any]:
    """The figures of an event."""
    champion = challenger.version if verdict.promoted else verdict.against
    return {
        "model": challenger.name,
        "challenger": challenger.version,
        "champion_before": verdict.against,
        "champion": champion,
        "reason": verdict.reason,
        "questions": verdict.questions,
        "both": verdict.both,
        "only_challenger": verdict.only_challenger,
        "only_champion": verdict.only_champion,
        "neither": verdict.neither,
        "difference": verdict.difference,
        "low": verdict.low,
        "high": verdict.high,
        "p_value": verdict.p_value,
        "level": verdict.level,
    }


def verdict_markdown(challenger: Registered, verdict: Verdict) -> str:
    """The verdict as a page."""
    before = "none" if verdict.against is None else f"version {escaped(verdict.against)}"
    lines = [
        f"# {escaped(_decision(challenger, verdict))}",
        "",
        f"Why: {escaped(verdict.reason)}",
        "",
        f"- challenger: version {escaped(challenger.version)} ({escaped(challenger.tags.get('qcrd.student'))})",
        f"- champion before: {before}",
    ]
    if verdict.p_value is not None and verdict.difference is not None:
        low, high = 100 * (verdict.low or 0.0), 100 * (verdict.high or 0.0)
        lines += [
            "",
            f"| {verdict.questions:,} test questions | champion right | champion wrong |",
            "|---|---:|---:|",
            f"| **challenger right** | {verdict.both:,} | {verdict.only_challenger:,} |",
            f"| **challenger wrong** | {verdict.only_champion:,} | {verdict.neither:,} |",
            "",
            f"- difference: {100 * verdict.difference:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})",
            f"- exact McNemar test: p = {verdict.p_value:.2g}; the champion is replaced at {verdict.level:g} or less",
        ]
    if verdict.dropped:
        lines += ["", "**The challenger is worse than the champion: the interval lies wholly below 0.**"]
    return "\n".join(lines)


def _decision(challenger: Registered, verdict: Verdict) -> str:
    decision = "is the champion" if verdict.promoted else "does not become the champion"
    return f"{challenger.name} version {challenger.version} {decision}"
