"""The watch on teacher hacking as a Prefect task: does a student come closer to the teacher, but not to the truth?"""

from pathlib import Path

from prefect import get_run_logger, task
from prefect.events import emit_event

from tasks.steps.retries import STEP
from tasks.training.agreement import agreements
from tasks.training.folder import Training
from tasks.watching.proxy import Alarm, alarm

PROXY, TRAINING = "qcrd.proxy", "qcrd.training"
"""The event's name, and the kind of its resource."""


@task(name="watch the proxy", task_run_name="watch the proxy {t}", **STEP)
def watch_proxy(folder: Path, t: int) -> Alarm | None:
    """Warns if agreement with the teacher has risen, and right answers have not (`tasks.watching.proxy`)."""
    training, log = Training(folder), get_run_logger()
    rounds = [one for one in agreements(training) if one.t <= t]
    name = training.spec.name
    if t == 0:
        if not rounds:
            log.info("%s: no validation question has a teacher's majority, so agreement is not watched.", name)
        elif not rounds[0].right:
            log.info("%s: no right answer to a validation question is known, so agreement is not watched.", name)
    found = alarm(rounds)
    if found is not None:
        log.warning("%s round %d may be learning the teacher's mistakes: %s.", name, t, found)
        emit_event(
            PROXY,
            {"prefect.resource.id": f"{TRAINING}.{training.spec.training_id}", "prefect.resource.name": name},
            payload={"reason": str(found), "round": t, "since": found.since, "questions": found.questions},
        )
    return found
