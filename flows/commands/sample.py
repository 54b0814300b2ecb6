"""`qcrd sample`: a teacher's samples, from our own vLLM server or from any OpenAI-compatible endpoint."""

import json
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
from models.teacher_settings import Instruction
from storage.datasets.definition import Dataset
from storage.datasets.registry import get_dataset
from storage.errors import StorageError, UsageError, one_line
from storage.schemas import EXAMPLES
from storage.store import Store
from tasks.teacher.reading import Rationale
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
    "per_million_reasoning": "--price-reasoning",
}
NEVER_REPEATED = ("--url", "--extra-body")
"""Options in whose value somebody may have put a password."""


def sample(
    dataset: DatasetOption,
    split: Annotated[str, typer.Option("--split", help="The split whose questions are sampled.")] = "train",
    path: Annotated[
        str | None, typer.Option("--path", help="A file with the questions, instead of the dataset's own source.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Take at most this many questions.")] = None,
    model: Annotated[str | None, key_option(TeacherSettings, "model")] = None,
    url: Annotated[list[str] | None, key_option(TeacherSettings, "url", more="May be given several times.")] = None,
    name: Annotated[str | None, key_option(TeacherSettings, "name")] = None,
    n: Annotated[str, key_option(TeacherSettings, "n")] = str(DEFAULT.n),
    doubt: Annotated[float, key_option(TeacherSettings, "doubt")] = DEFAULT.doubt,
    temperature: Annotated[float, key_option(TeacherSettings, "temperature")] = DEFAULT.temperature,
    top_p: Annotated[float, key_option(TeacherSettings, "top_p")] = DEFAULT.top_p,
    max_tokens: Annotated[int, key_option(TeacherSettings, "max_tokens")] = DEFAULT.max_tokens,
    seed: Annotated[int, key_option(TeacherSettings, "seed")] = DEFAULT.seed,
    logprobs: Annotated[bool, key_option(TeacherSettings, "logprobs")] = DEFAULT.logprobs,
    api: Annotated[str, key_option(TeacherSettings, "api")] = DEFAULT.api,
    batch: Annotated[bool, key_option(TeacherSettings, "batch")] = DEFAULT.batch,
    in_flight: Annotated[int | None, key_option(TeacherSettings, "in_flight")] = DEFAULT.in_flight,
    timeout: Annotated[float, key_option(TeacherSettings, "timeout_s", "--timeout")] = DEFAULT.timeout_s,
    retries: Annotated[int, key_option(TeacherSettings, "retries")] = DEFAULT.retries,
    port: Annotated[int | None, key_option(TeacherSettings, "port")] = DEFAULT.port,
    rationale: Annotated[str, key_option(TeacherSettings, "rationale")] = DEFAULT.rationale,
    reasoning_effort: Annotated[
        str | None,
        typer.Option("--reasoning-effort", help="How long the teacher thinks, such as low; one of --extra-body."),
    ] = None,
    extra_body: Annotated[str | None, key_option(TeacherSettings, "extra_body", more="Written as JSON.")] = None,
    instruction: Annotated[str, key_option(TeacherSettings, "instruction")] = DEFAULT.instruction,
    price_prompt: Annotated[float, key_option(Price, "per_million_prompt", "--price-prompt")] = 0.0,
    price_completion: Annotated[float, key_option(Price, "per_million_completion", "--price-completion")] = 0.0,
    price_reasoning: Annotated[float | None, key_option(Price, "per_million_reasoning", "--price-reasoning")] = None,
    as_json: JsonOption = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Sample a teacher's rationales.

    What is stored already is not sampled again; stop and go on at any time.

    Example: qcrd sample --dataset lab --limit 200
    Example: qcrd sample --dataset svamp --path svamp.jsonl --url https://host/v1 --model big-model
    """
    at_least("--limit", limit, 1)
    one_of("--api", api, get_args(Api))
    one_of("--rationale", rationale, get_args(Rationale))
    one_of("--instruction", instruction, get_args(Instruction))
    split_named(split)
    named = get_dataset(dataset)
    place = home_at(home)
    store = place.open_store()
    if url and model is None:
        raise UsageError("--url needs --model, the name of the model that the endpoint serves.")
    if model is None and named.name != LAB:
        raise UsageError(
            "Name a teacher: --model FOLDER serves one with vLLM, --url URL --model NAME asks an endpoint, "
            "--model lab takes the lab's (for --dataset lab)."
        )
    # Checked before anything is loaded, started or stored.
    settings = settings_of(
        model=model or LAB,
        url=tuple(url) if url else None,
        name=name,
        n=n,
        doubt=doubt,
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        logprobs=logprobs,
        seed=seed,
        api=api,
        batch=batch,
        in_flight=in_flight,
        timeout_s=timeout,
        retries=retries,
        port=port,
        rationale=rationale,
        extra_body=body_fields(extra_body, reasoning_effort),
        instruction=instruction,
        price={
            "per_million_prompt": price_prompt,
            "per_million_completion": price_completion,
            "per_million_reasoning": price_reasoning,
        },
    )
    from tasks.teacher.lab import find_lab
    from tasks.teacher.session import choose_teacher, teach  # imports the openai package, which takes a moment

    if settings.needs_lab() and find_lab(place.path) is None:
        raise UsageError(f"The lab's teacher is not built under {place.path}; run `qcrd lab build` (about 3 minutes).")
    teacher = choose_teacher(settings, place.path)
    example_ids = stored_questions(store, named, split, path, limit)
    with sampling_bar(teacher.identity.model, show=not as_json) as on_progress:
        taught = teach(store, named, split, example_ids, teacher, settings.seed, place.logs, notice, on_progress)
    _report(as_json, taught, settings)


def settings_of(**values: Any) -> TeacherSettings:
    """The settings that some options make, or one line that says which option is wrong and what is allowed.

    Raises:
        UsageError: a value is not allowed.
    """
    try:
        return TeacherSettings(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:  # options that do not go together
            raise UsageError(f"{message}.") from None
        key = str(first["loc"][-1])
        option = OPTIONS.get(key, f"--{key.replace('_', '-')}")
        secret = option in NEVER_REPEATED
        given = "" if secret else f", not {first['input']!r}"
        raise UsageError(f"{option}: {message}{given}.") from (None if secret else error)


def body_fields(extra_body: str | None, reasoning_effort: str | None) -> dict[str, Any]:
    """The fields that two options add to the body of every request.

    Raises:
        UsageError: one is no JSON object.
    """
    try:
        fields = json.loads(extra_body) if extra_body is not None else {}
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise UsageError(
            """--extra-body takes a JSON object, such as '{"chat_template_kwargs": {"enable_thinking": false}}'."""
        )
    return fields | ({"reasoning_effort": reasoning_effort} if reasoning_effort is not None else {})


def stored_questions(store: Store, dataset: Dataset, split: str, path: str | None, limit: int | None) -> list[str]:
    """Stores the questions to sample and returns their ids; stored ones serve where the source is out of reach."""
    from tasks.questions.stored import store_examples

    try:
        stored = store_examples(store, dataset, split, dataset.load(split, path, limit))
        for note in stored.notes:
            notice(note)
        return stored.example_ids
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
    from tasks.teacher.sampling import per_second

    with progress_bar(show=show) as progress:
        bar = progress.add_task(inert(f"sampling {teacher}"), total=None, note="")

        def on_progress(state: "SamplingProgress") -> None:
            left = (state.wanted - state.sampled) * state.seconds / max(state.sampled, 1)
            speed = per_second(state.completion_tokens, state.seconds)
            note = (
                f"{per_second(state.sampled, state.seconds) or 0:,.1f} samples/s, "
                + (f"{speed:,.0f} tokens/s, " if speed is not None else "")
                + f"{duration(left)} left"
            )
            progress.update(bar, completed=state.sampled, total=state.wanted, note=note)

        yield on_progress


def _report(as_json: bool, taught: "Taught", settings: TeacherSettings) -> None:
    from tasks.teacher.sampling import SamplingProgress, per_second

    plan, done = taught.plan, taught.done or SamplingProgress(wanted=0)
    cost = settings.price.of(done.prompt_tokens, done.completion_tokens, done.reasoning_tokens)
    samples_per_s, tokens_per_s = (per_second(n, done.seconds) for n in (done.sampled, done.completion_tokens))
    if as_json:
        figures: dict[str, Any] = {
            "examples": plan.examples,
            "samples": plan.samples,
            "stored_before": plan.stored,
            "sampled": done.sampled,
            "unparsed": done.unparsed,
            "cut_off": done.cut_off,
            "filtered": done.filtered,
            "refused": done.refused,
            "asked_otherwise": done.learnt,
            "prompt_tokens": done.prompt_tokens,
            "completion_tokens": done.completion_tokens,
            "reasoning_tokens": done.reasoning_tokens,
            "seconds": round(done.seconds, 3),
            "seconds_in_all": round(taught.seconds, 3),
            "samples_per_s": round(samples_per_s, 2) if samples_per_s is not None else None,
            "tokens_per_s": round(tokens_per_s, 1) if tokens_per_s is not None else None,
            "cost": cost,
        }
        print_json(figures)
        return
    if taught.done is None:
        out.print(f"All {plan.samples:,} samples of {plan.examples:,} questions are stored already; nothing to do.")
        return
    priced = settings.price.of(0, 0) is not None
    out.print(
        f"{done.sampled:,} samples made and stored ({done.unparsed:,} without an answer); {plan.stored:,} were there. "
        f"{_tokens(done)} in {duration(done.seconds)}: {figure(samples_per_s)} samples/s, "
        f"{figure(tokens_per_s)} tokens/s."
        + (f" Cost: {'unknown' if cost is None else f'{cost:,.4f}'}." if priced else "")
        + (f" The endpoint takes {'; '.join(done.learnt)}." if done.learnt else ""),
        soft_wrap=True,
    )
    if done.cut_off:
        notice(f"{done.cut_off:,} were cut off at {settings.max_tokens:,} tokens: raise --max-tokens.")
    if done.filtered:
        notice(f"{done.filtered:,} were cut off by the endpoint's content filter.")
    for example, reason in list(done.refused.items())[:3]:
        notice(f"refused: {example}: {reason}")
    if done.refused:
        notice(f"{len(done.refused):,} questions were refused by the endpoint; the next run asks for them again.")


def _tokens(done: "SamplingProgress") -> str:
    """The tokens of a run, for people."""
    prompt, completion, reasoning = (
        "unknown" if count is None else f"{count:,}"
        for count in (done.prompt_tokens, done.completion_tokens, done.reasoning_tokens)
    )
    if prompt == completion == "unknown":
        return "Tokens: unknown,"
    thoughts = "" if reasoning in ("0", "unknown") else f" ({reasoning} of them thoughts)"
    return f"{prompt} prompt and {completion} completion tokens{thoughts}"
