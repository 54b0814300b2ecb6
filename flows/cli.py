"""The `qcrd` command line.

    qcrd distill lab                                from questions to a registered student; or step by step:
    qcrd lab build                                  train the lab's teacher once (about 3 minutes on 2 cores)
    qcrd sample --dataset lab --limit 200           sample it through vLLM's server
    qcrd vote --dataset lab                         majority answers, positives and negatives
    qcrd show rationales --dataset lab              read them

Every command exits with 0 if it did its work, 1 if it found a problem (doctor, store check), 2 after bad input or a
failed service, with one clear line on standard error. After Ctrl-C or SIGTERM it exits with 130 or 143; what was
finished is stored.
"""

import atexit
import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import typer

from flows.commands import (
    answer,
    audit,
    automations,
    compare,
    distill,
    doctor,
    export,
    forget,
    init,
    keys,
    lab,
    metrics,
    predict,
    prune,
    recorded,
    registry,
    runs,
    sample,
    serve,
    show,
    sql,
    store,
    ui,
    unparsed,
    vote,
)
from flows.terminal import err, plain
from tasks.errors import ONE_LINE

app = typer.Typer(
    name="qcrd",
    help="Teach a small model to answer and to explain, from a large model's samples.\n\n"
    "First steps: qcrd doctor; qcrd distill lab; qcrd show rounds; qcrd predict QUESTION; qcrd ui.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Panels of `qcrd --help`, with the commands in each.
PANELS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {
    "Distil": {
        "init": init.init_command,
        "distill": distill.distill_command,
        "compare": compare.compare_command,
        "keys": keys.keys_command,
        "resume": runs.resume_command,
        "serve": serve.serve_command,
    },
    "Step by step": {
        "lab": lab.app,
        "sample": sample.sample,
        "import": recorded.import_file,
        "vote": vote.vote_command,
        "export": export.export_command,
    },
    "Registered students": {
        "predict": predict.predict_command,
        "answer": answer.answer_command,
        "evaluate": predict.evaluate_command,
        "registry": registry.registry_command,
        "rollback": registry.rollback_command,
    },
    "Watch": {
        "show": show.app,
        "sql": sql.sql,
        "ui": ui.ui_command,
        "metrics": metrics.metrics_command,
        "automations": automations.automations_command,
    },
    "Check": {
        "audit": audit.audit_command,
        "doctor": doctor.doctor,
        "store": store.app,
        "forget": forget.forget_command,
    },
}
store.app.command("prune")(prune.prune_command)
show.app.command("runs")(runs.show_runs)
show.app.command("unparsed")(unparsed.show_unparsed)
for panel, commands in PANELS.items():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(command)

# typer brings its own copy of click and does not export its exceptions' parents by name.
ClickUsageError: Any = typer.BadParameter.__mro__[1]
ClickError: Any = typer.BadParameter.__mro__[2]


INTERRUPTED, TERMINATED = 130, 143  # 128 + the signal's number, as shells have it


class _Signals:
    """Treats SIGTERM like Ctrl-C, so that both end sampling cleanly; remembers which one it was."""

    terminated = False

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        self.terminated = True
        signal.raise_signal(signal.SIGINT)


def main() -> None:
    """Runs the command line and exits."""
    # Runs after all other exit functions, to hide what DuckDB's binding prints while Python shuts down ("nanobind:
    # leaked ...").
    atexit.register(_forget_errors)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command; returns the exit code. Errors meant for people become one line on standard error."""
    signals = _Signals()
    # A shell starts background jobs (`qcrd sample ... &`) with SIGINT ignored; Ctrl-C's way out must work there too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signals.handle)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no UTF-8 still shows something
    try:
        code = app(arguments, standalone_mode=False, prog_name="qcrd")
        if sys.stdout is not None:
            sys.stdout.flush()
    except ONE_LINE as error:
        _complain(str(error))
        return 2
    except ClickUsageError as error:
        _complain(_usage_text(error))
        return 2
    except ClickError as error:
        _complain(error.format_message())
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except OSError as error:
        _forget_output()
        if isinstance(error, BrokenPipeError):  # `qcrd sql ... | head` has read enough
            return 0
        _complain(f"Cannot go on: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        return 2
    except UnicodeEncodeError as error:
        _complain(f"A name or value contains bytes that are not text: {error.reason}. Give it in UTF-8.")
        return 2
    if code == INTERRUPTED:  # typer turns Ctrl-C into this exit code by itself, without a message
        _complain("Stopped. What was finished is stored; run the same command again to go on.")
        return TERMINATED if signals.terminated else INTERRUPTED
    return code if isinstance(code, int) else 0


def _forget_output() -> None:
    """Discards what could not be written to standard output, so that it is not tried again at exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)


def _forget_errors() -> None:
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)


def _complain(text: str) -> None:
    err.print(plain("qcrd: " + " ".join(text.split())), soft_wrap=True)


def _usage_text(error: Any) -> str:
    """Click's complaint in one line, with the nearest valid name and where to read on."""
    text = error.format_message()
    if not text:  # a group without a command has printed its help
        return "Give a command; see the list above."
    context = error.ctx
    if context is not None and text.startswith("No such command") and "Did you mean" not in text:
        text = f"{text.rstrip('.')}. Allowed: {', '.join(getattr(context.command, 'commands', {}))}."
    path = context.command_path if context is not None else "qcrd"
    return f"{text} See `{path} --help`."
