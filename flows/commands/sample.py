"""`qcrd sample`: a teacher's samples, from our own vLLM server or from any OpenAI-compatible endpoint."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from pydantic import ValidationError

from flows.commands.options import (
    DEFAULT_HOME,
    DatasetOption,
    HomeOption,
    JsonOption,
    at_least,
    home_at,
    key_option,
    one_of,
    split_named,
)
from flows.terminal import duration, figure, inert, notice, out, print_json, progress_bar
from storage.datasets.definition import Dataset
from storage.datasets.registry import get_dataset
from storage.errors import StorageError, UsageError, one_line
from storage.schemas import EXAMPLES
from storage.store import Store
from tasks.teacher.settings import LAB, Api, Price, TeacherSettings

if TYPE_CHECKING:
    from tasks.teacher.sampling import SamplingProgress
    from tasks.teacher.session import Taught

DEFAULT = TeacherSettings(source="stored")  # the only source whose settings are complete without a model or a file
# Options that are not spelt like the key of TeacherSettings that they set.
OPTIONS = {
    "timeout_s": "--timeout",
    "per_million_prompt": "--price-prompt",
    "per_million_completion": "--price-completion",
}


def sample(
    dataset: DatasetOption,
    split: Annotated[str, typer.Option("--split", help="The split whose questions are sampled.")] = "train",
    path: Annotated[
        str | None, typer.Option("--path", help="A file with the questions, instead of the dataset's own source.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Take at most this many questions.")] = None,
    model: Annotated[str | None, key_option(TeacherSettings, "model")] = None,
    url: Annotated[str | None, key_option(TeacherSettings, "url")] = None,
    name: Annotated[str | None, key_option(TeacherSettings, "name")] = None,
    n: Annotated[int, key_option(TeacherSettings, "n")] = DEFAULT.n,
    temperature: Annotated[float, key_option(TeacherSettings, "temperature")] = DEFAULT.temperature,
    top_p: Annotated[float, key_option(TeacherSettings, "top_p")] = DEFAULT.top_p,
    max_tokens: Annotated[int, key_option(TeacherSettings, "max_tokens")] = DEFAULT.max_tokens,
    seed: Annotated[int, key_option(TeacherSettings, "seed")] = DEFAULT.seed,
    logprobs: Annotated[bool, key_option(TeacherSettings, "logprobs")] = DEFAULT.logprobs,
    api: Annotated[str, key_option(TeacherSettings, "api")] = DEFAULT.api,
    in_flight: Annotated[int, key_option(TeacherSettings, "in_flight")] = DEFAULT.in_flight,
    timeout: Annotated[float, key_option(TeacherSettings, "timeout_s", "--timeout")] = DEFAULT.timeout_s,
    retries: Annotated[int, key_option(TeacherSettings, "retries")] = DEFAULT.retries,
    port: Annotated[int | None, key_option(TeacherSettings, "port")] = DEFAULT.port,
    price_prompt: Annotated[float, key_option(Price, "per_million_prompt", "--price-prompt")] = 0.0,
    price_completion: Annotated[float, key_option(Price, "per_million_completion", "--price-completion")] = 0.0,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Sample a teacher's rationales.

    What is stored already is not sampled again; stop and go on at any time.

    Example: qcrd sample --dataset lab --limit 200
    Example: qcrd sample --dataset svamp --path svamp.jsonl --url https://host/v1 --model big-model
    """
    at_least("--n", n, 1)
    at_least("--limit", limit, 1)
    one_of("--api", api, get_args(Api))
    split_named(split)
    named = get_dataset(dataset)
    place = home_at(home)
    store = place.open_store()
    if url is not None and model is None:
        raise UsageError("--url needs --model, the name of the model that the endpoint serves.")
    if model is None and named.name != LAB:
        raise UsageError(
            "Name a teacher: --model FOLDER serves one with vLLM, --url URL --model NAME asks an endpoint, "
            "--model lab takes the lab's (for --dataset lab)."
        )
    # Checked before anything is loaded, started or stored.
    settings = settings_of(
        model=model or LAB,
        url=url,
        name=name,
        n=n,
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        logprobs=logprobs,
        seed=seed,
        api=api,
        in_flight=in_flight,
        timeout_s=timeout,
        retries=retries,
        port=port,
        price={"per_million_prompt": price_prompt, "per_million_completion": price_completion},
    )
    from tasks.teacher.lab import find_lab
    from tasks.teacher.session import choose_teacher, teach  # imports the openai package, which takes a moment

    if settings.needs_lab() and find_lab(place.path) is None:
        raise UsageError(f"The lab's teacher is not built under {place.path}; run `qcrd lab build` (about 3 minutes).")
    teacher = choose_teacher(settings, place.path)
    example_ids = stored_questions(store, named, split, path, limit)
    with sampling_bar(teacher.identity.model, show=not as_json) as on_progress:
        taught = teach(store, named, split, example_ids, teacher, settings.seed, place.logs, notice, on_progress)
    _report(as_json, taught, settings.price)


def settings_of(**values: Any) -> TeacherSettings:
    """The settings that some options make, or one line that says which option is wrong and what is allowed.

    Raises:
        UsageError: a value is not allowed.
    """
    try:
        return TeacherSettings(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][-1])
        option = OPTIONS.get(key, f"--{key.replace('_', '-')}")
        message = first["msg"].removeprefix("Value error, ")
        # An endpoint's URL may hold a password, which belongs on no screen.
        given = "" if option == "--url" else f", not {first['input']!r}"
        raise UsageError(f"{option}: {message}{given}.") from (None if option == "--url" else error)


def stored_questions(store: Store, dataset: Dataset, split: str, path: str | None, limit: int | None) -> list[str]:
    """Stores the questions to sample and returns their ids; stored ones serve where the source is out of reach."""
    from tasks.questions.stored import store_examples

    try:
        return store_examples(store, dataset, split, dataset.load(split, path, limit)).example_ids
    except StorageError as error:
        if path is not None:
            raise
        partition = {"dataset": dataset.name, "split": split}
        with store.connect() as con:
            relation = store.relation(EXAMPLES, partition)
            # NULL is "no limit" to DuckDB
            rows = store.execute(con, f"SELECT example_id FROM {relation} ORDER BY example_id LIMIT $1", [limit])
        if not rows.num_rows:
            raise
        notice(f"{one_line(error)}. Taking the {rows.num_rows:,} questions that are stored.")
        ids: list[str] = rows["example_id"].to_pylist()
        return ids


@contextmanager
def sampling_bar(teacher: str, *, show: bool) -> Iterator[Callable[["SamplingProgress"], None]]:
    """A progress bar for `teach`."""
    with progress_bar(show=show) as progress:
        bar = progress.add_task(inert(f"sampling {teacher}"), total=None, note="")

        def on_progress(state: "SamplingProgress") -> None:
            seconds = max(state.seconds, 1e-9)
            left = (state.wanted - state.sampled) * seconds / max(state.sampled, 1)
            note = (
                f"{state.sampled / seconds:,.1f} samples/s, {state.completion_tokens / seconds:,.0f} tokens/s, "
                f"{duration(left)} left"
            )
            progress.update(bar, completed=state.sampled, total=state.wanted, note=note)

        yield on_progress


def _report(as_json: bool, taught: "Taught", price: Price) -> None:
    plan, done = taught.plan, taught.done
    sampled, unparsed, refused = (done.sampled, done.unparsed, done.refused) if done else (0, 0, {})
    prompt, completion, seconds = (done.prompt_tokens, done.completion_tokens, done.seconds) if done else (0, 0, 0.0)
    cost = price.of(prompt, completion)
    figures: dict[str, Any] = {
        "examples": plan.examples,
        "samples": plan.samples,
        "stored_before": plan.stored,
        "sampled": sampled,
        "unparsed": unparsed,
        "refused": refused,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "seconds": round(seconds, 3),
        "seconds_in_all": round(taught.seconds, 3),
        "samples_per_s": round(sampled / seconds, 2) if seconds else None,
        "tokens_per_s": round(completion / seconds, 1) if seconds else None,
        "cost": cost,
    }
    if as_json:
        print_json(figures)
        return
    if done is None:
        out.print(f"All {plan.samples:,} samples of {plan.examples:,} questions are stored already; nothing to do.")
        return
    out.print(
        f"{sampled:,} samples made and stored ({unparsed:,} without an answer); {plan.stored:,} were there. "
        f"{prompt:,} prompt and {completion:,} completion tokens in {duration(seconds)}: "
        f"{figure(figures['samples_per_s'])} samples/s, {figure(figures['tokens_per_s'])} tokens/s."
        + (f" Cost: {cost:,.4f}." if cost is not None else ""),
        soft_wrap=True,
    )
    for example, reason in list(refused.items())[:3]:
        notice(f"refused: {example}: {reason}")
    if refused:
        notice(f"{len(refused):,} questions were refused by the endpoint; the next run asks for them again.")
