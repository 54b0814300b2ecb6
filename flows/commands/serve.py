"""`qcrd serve`: the same distillation again and again, as data arrives, on this machine."""

import os
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated
from zoneinfo import available_timezones

import typer

from flows.commands.distill import ConfigArgument, SetOption
from flows.commands.options import DEFAULT_HOME, HomeOption, home_at, one_of, time_span
from flows.commands.ui import MlflowPortOption, PrefectPortOption
from flows.config.schedule import When
from flows.prefect.embedded import check_server, prepare_prefect
from flows.prefect.servers import servers
from flows.terminal import notice, out, plain
from storage.errors import UsageError

API_VARIABLE, HEARTBEAT_VARIABLE = "PREFECT_API_URL", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
HEARTBEAT_S = 60


def serve_command(
    config: ConfigArgument,
    settings: SetOption = None,
    cron: Annotated[
        str | None, typer.Option("--cron", help='When to run, such as "0 3 * * *" (every night at three).')
    ] = None,
    every: Annotated[str | None, typer.Option("--every", help="Or the time between two runs: 30m, 6h, 1d.")] = None,
    timezone: Annotated[str, typer.Option("--timezone", help="Time zone of --cron, such as Europe/Berlin.")] = "UTC",
    overlap: Annotated[
        str, typer.Option("--overlap", help="What to do with a run that is due while another runs: refuse or queue.")
    ] = "refuse",
    at_once: Annotated[bool, typer.Option("--now", help="Also run once right away.")] = False,
    prefect_port: PrefectPortOption = 4200,
    mlflow_port: MlflowPortOption = 5000,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Run a distillation on a schedule, until Ctrl-C.

    Each run samples only what is new, and ends in the gate. Meanwhile Prefect's
    and MLflow's pages are served, on this machine only. If PREFECT_API_URL is
    set, that server is used and none is started.

    Example: qcrd serve lab --every 1d --now
    """
    from flows.config.distill import load_config

    loaded = load_config(config, settings or [])
    when = _schedule(cron, every, timezone)
    one_of("--overlap", overlap, ("refuse", "queue"))
    place = home_at(home)
    # Served runs are processes of their own. Prefect prints what they log, and it belongs in a service's log.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO")
    # Missing heartbeats give away a run that died without a word (`qcrd automations`).
    os.environ.setdefault(HEARTBEAT_VARIABLE, str(HEARTBEAT_S))
    prepare_prefect(place.path)
    given = os.environ.get(API_VARIABLE)
    with ExitStack() as until_the_end:
        if given is None:
            started = until_the_end.enter_context(servers(place, prefect_port, mlflow_port))
            for server in started:
                out.print(plain(f"{server.name:<8} {server.address}"), soft_wrap=True)
            os.environ[API_VARIABLE] = f"{started[0].address}/api"  # before Prefect is imported
        else:
            check_server()
        from flows.deployed import serve_distill

        name = Path(config).stem
        out.print(plain(f"serving  distill/{name}, {cron or 'every ' + str(every)}"), soft_wrap=True)
        notice("Ctrl-C ends it and pauses the schedule. The next run goes on with what a stopped one has begun.")
        serve_distill(name, loaded, place.path, when, queue=overlap == "queue", at_once=at_once)


def _schedule(cron: str | None, every: str | None, timezone: str) -> When:
    """When to run.

    Raises:
        UsageError: neither or both are given, or one cannot be read.
    """
    zones = available_timezones()
    if timezone not in zones:
        near = get_close_matches(timezone, zones, 1)
        raise UsageError(
            f"Unknown time zone {timezone!r}." + (f" Did you mean {near[0]!r}?" if near else "")
            + " Take a name of the IANA database, such as Europe/Berlin."
        )  # fmt: skip
    if cron is not None and every is None:
        return When(cron=cron, timezone=timezone)
    if every is None or cron is not None:
        raise UsageError('Say when: either --cron "0 3 * * *" or --every 6h.')
    return When(interval=time_span("--every", every), timezone=timezone)
