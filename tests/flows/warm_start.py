"""Starts `qcrd` as a process of its own in a moment: by forking one that has imported everything already.

    python -m tests.flows.warm_start      then a line of JSON for each start, on standard input:
    {"arguments": ["distill", "small.yaml"], "out": "run.json", "log": "run.log"}

Answers each line with the process's pid and, once that has ended, its exit code, a line each. Importing Prefect, MLflow
and torch takes some ten seconds, which a test that starts fifty runs cannot spend fifty times. What is forked runs the
same `main` as the `qcrd` command, in a session of its own, with the environment it was given.
"""

import json
import os
import sys
from importlib import import_module

from flows.home import HOME_VARIABLE
from flows.prefect.embedded import prepare_prefect

MODULES = ("flows.cli", "flows.distill", "flows.prefect.report", "prefect.server.api.server")


def serve() -> None:
    """Until standard input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            begin(order["arguments"], order["out"], order["log"])
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def begin(arguments: list[str], out: str, log: str) -> None:
    """The forked process becomes `qcrd`; never returns.

    Args:
        out: file for standard output, made anew.
        log: file for standard error, added to.
    """
    from flows.cli import main

    os.setsid()
    write = os.O_WRONLY | os.O_CREAT
    for number, (name, flags) in enumerate(
        ((os.devnull, os.O_RDONLY), (out, write | os.O_TRUNC), (log, write | os.O_APPEND))
    ):
        os.dup2(os.open(name, flags, 0o600), number)
    sys.argv = ["qcrd", *arguments]
    main()


if __name__ == "__main__":
    from pathlib import Path

    prepare_prefect(Path(os.environ[HOME_VARIABLE]))  # Prefect reads its settings when it is imported
    for module in MODULES:
        import_module(module)
    serve()
