"""`qcrd lab build`: the lab's teacher, trained once and cached."""

from typing import Annotated

import typer

from flows.commands.options import DEFAULT_HOME, HomeOption, JsonOption, home_at
from flows.terminal import notice, out, plain, print_json, progress_bar

app = typer.Typer(
    help="The lab: word problems and a teacher; no GPU, no hub.\n\nExample: qcrd lab build",
    no_args_is_help=True,
)


@app.callback()
def _lab() -> None:
    """The lab: word problems and a teacher; no GPU, no hub."""


@app.command("build")
def build(
    force: Annotated[bool, typer.Option("--force", help="Train again even if a teacher is cached.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Train the lab's teacher, once (about 3 minutes on 2 cores).

    It is a small Llama, trained on worked solutions of procedural word problems.
    A quarter of their calculations are off by one, as a hurried pupil's are, so
    its samples err often and differently enough for a majority to help.

    Example: qcrd lab build
    """
    from tasks.teacher.lab import build_lab

    place = home_at(home)
    with progress_bar(show=not as_json) as progress:
        bar = progress.add_task("training the lab's teacher", total=None, note="")

        def on_progress(step: int, steps: int, loss: float, tokens_per_s: float) -> None:
            progress.update(bar, completed=step, total=steps, note=f"loss {loss:.3f}, {tokens_per_s:,.0f} tokens/s")

        built = build_lab(place.path, force=force, on_progress=on_progress)
    if as_json:
        print_json({"folder": str(built.folder), "reused": built.reused, "seconds": built.seconds})
        return
    out.print(plain(f"lab teacher: {built.folder}"), soft_wrap=True)
    notice("cached; nothing to do" if built.reused else f"trained in {built.seconds:.0f} s")
