"""The judge of a comparison as a Prefect task."""

from prefect import get_run_logger, task

from tasks.comparing.judge import Pair, judge_pairs
from tasks.comparing.preferences import Preferences
from tasks.comparing.settings import JudgeSettings
from tasks.running.workspace import Workspace
from tasks.steps.retries import STEP
from tasks.teacher.key import key_of
from tasks.teacher.session import choose_teacher


@task(name="judge", task_run_name="judge {variant}", **STEP)
def judge(
    workspace: Workspace, variant: str, partition: dict[str, str], pairs: list[Pair], settings: JudgeSettings
) -> Preferences:
    """Asks the judge which of two rationales of each question is better; stored replies are taken as they are."""
    log = get_run_logger()
    found = judge_pairs(
        workspace.open_store(), partition, pairs, choose_teacher(settings.as_teacher(), workspace.home),
        workspace.home / "logs", log.info, run_id=workspace.run_id,
        key=key_of(settings.key_secret) if settings.key_secret else None,
    )  # fmt: skip
    if found.refused:
        log.warning("%s: the judge refused %s questions; they are left out.", variant, f"{found.refused:,}")
    if found.unread:
        log.warning(
            "%s: %s questions have a reply without a verdict; they count as ties.", variant, f"{found.unread:,}"
        )
    return found
