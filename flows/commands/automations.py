"""`qcrd automations`: what a Prefect server does when a run fails or dies, and when the champion changes."""

import os
from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table

from flows.commands.options import DEFAULT_HOME, HomeOption, JsonOption, at_least, home_at
from flows.prefect.embedded import prepare_prefect
from flows.terminal import notice, out, plain, print_json
from storage.errors import UsageError

SHORTEST_SILENCE_S = 10
"""Shortest interval, in seconds, at which Prefect checks for missing events."""


def automations_command(
    notify: Annotated[
        str | None,
        typer.Option("--notify", help="Prefect block that notifies you, as TYPE/NAME: slack-webhook/team."),
    ] = None,
    silence: Annotated[
        int, typer.Option("--silence", help="Seconds without a heartbeat after which a run counts as dead.")
    ] = 300,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the automations.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Set up automations on a Prefect server.

    On the server of PREFECT_API_URL, every failed, crashed or dead run,
    promotion, quality drop and drift then leaves an event, and notifies you if
    you name a block. Running it again changes only what differs.

    Example: qcrd automations --notify slack-webhook/team
    """
    at_least("--silence", silence, SHORTEST_SILENCE_S)
    if not os.environ.get("PREFECT_API_URL"):
        raise UsageError(
            "Automations live on a Prefect server, and PREFECT_API_URL names none. `qcrd ui` and `qcrd serve` start "
            "one: export PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    prepare_prefect(home_at(home).path)
    from flows.prefect.automations import apply_automations, remove_automations  # takes some seconds: Prefect

    done = remove_automations() if remove else apply_automations(timedelta(seconds=silence), notify)
    if as_json:
        print_json(done)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, outcome in done.items():
        table.add_row(plain(name), outcome)
    out.print(table)
    if not remove and notify is None:
        notice("Nobody is notified; name a block with --notify.")
