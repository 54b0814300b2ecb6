"""Texts written by `models.generation.generate` and by transformers' `generate`: the same model, inputs and lengths.

Random weights hardly ever end a text, so every one is as long as it may be: what ours gains by dropping finished texts
does not show here.
"""

import statistics
from collections.abc import Callable

import torch

from benchmarks.gpu import synthetic
from benchmarks.gpu.device import seconds_each
from benchmarks.gpu.report import Report
from models.generation import generate
from models.losses import IGNORED
from models.student import Student, pad

SPEED, EQUAL = "Texts written", "Greedy texts equal to transformers'"
TEMPERATURE = 1.5  # of the paper's negatives
NEAR = 1e-3  # logits closer than this may be ordered either way by rounding
RUNS = 3


def measure_generation(report: Report, device: torch.device, small: bool) -> None:
    """Greedy and sampled, with float32 and bfloat16 weights, in turns; greedy texts in float32 are compared."""
    student = synthetic.student_on(device, "tiny" if small else "t5-base").eval()
    texts, longest = synthetic.make_texts(4 if small else 256, 7, student.model.config.vocab_size), 8 if small else 64
    _compare_texts(report, student, texts, longest)
    for dtype in (torch.float32, torch.bfloat16):
        student.to(dtype)
        for temperature in (TEMPERATURE, 0.0):
            if not report.allows(15):
                report.note(SPEED, f"Left out for lack of time: {dtype}, temperature {temperature}.")
                continue
            ways: dict[str, Callable[[], int]] = {
                "ours": lambda temperature=temperature: _ours(student, texts, longest, temperature),  # type: ignore[misc]
                "transformers": lambda temperature=temperature: _transformers(student, texts, longest, temperature)[1],  # type: ignore[misc]
            }
            _measure(report, device, f"{str(dtype).removeprefix('torch.')}, temperature {temperature}", ways)
    report.note(SPEED, f"{len(texts)} inputs at once, at most {longest} tokens each; medians of {RUNS} runs.")


def _measure(report: Report, device: torch.device, what: str, ways: dict[str, Callable[[], int]]) -> None:
    tokens = {name: work() for name, work in ways.items()}  # warms up
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(RUNS):
        for name, work in ways.items():
            seconds[name] += seconds_each(work, device, 1, warm_up=0)
    rates = {name: tokens[name] / statistics.median(seconds[name]) for name in ways}
    report.row(
        SPEED,
        what=what,
        **{f"{name}, tokens/s": rate for name, rate in rates.items()},
        ratio=rates["ours"] / rates["transformers"],
    )


def _ours(student: Student, texts: list[str], longest: int, temperature: float) -> int:
    seeds = range(len(texts)) if temperature else None
    written = generate(
        student, texts, max_new_tokens=longest, temperature=temperature, seeds=seeds, batch_size=len(texts)
    )
    return sum(one.tokens for one in written)


@torch.inference_mode()
def _transformers(student: Student, texts: list[str], longest: int, temperature: float) -> tuple[list[str], int]:
    """The texts, and how many tokens were written."""
    ids, mask = pad(student.input_ids(texts), student.pad_id)
    how = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature
        else {"do_sample": False}
    )
    written = student.model.generate(
        input_ids=ids.to(student.device),
        attention_mask=mask.long().to(student.device),
        max_new_tokens=longest,
        pad_token_id=student.pad_id,
        eos_token_id=student.eos_id,
        **how,
    )[:, 1:].cpu()
    ended = (written == student.eos_id).cumsum(1) > 0
    count = int((~ended).sum() + ended.any(1).sum())  # the end token is one more
    return student.tokenizer.batch_decode(written, skip_special_tokens=True), count


def _compare_texts(report: Report, student: Student, texts: list[str], longest: int) -> None:
    """Rounding may turn a choice between two tokens that are equally likely, and what follows is another text then."""
    one = [text.text for text in generate(student, texts, max_new_tokens=longest)]
    other, _ = _transformers(student, texts, longest, 0.0)
    pairs = list(zip(texts, one, other, strict=True))
    gaps = [_gap(student, text, a.split(), b.split()) for text, a, b in pairs if a != b]
    report.row(EQUAL, what="texts that are equal", value=len(texts) - len(gaps), limit=len(texts))
    report.check(EQUAL, "largest difference of two logits that were ordered otherwise", max(gaps, default=0.0), NEAR)


@torch.inference_mode()
def _gap(student: Student, text: str, one: list[str], other: list[str]) -> float:
    """How far apart the student's logits are for the two tokens at the first place where two texts of it differ."""
    place = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if place is None:  # one ends where the other goes on
        place = min(len(one), len(other))
    tokens = [
        student.tokenizer.convert_tokens_to_ids(words[place]) if place < len(words) else student.eos_id
        for words in (one, other)
    ]
    before = student.tokenizer.convert_tokens_to_ids(one[:place])
    ids, mask = pad(student.input_ids([text]), student.pad_id)
    targets, _ = pad([[*before, tokens[0]]], IGNORED)
    encoded = student.encode(ids.to(student.device), mask.to(student.device))
    logits = student.token_logits(encoded, targets.to(student.device))[0, -1]
    return float((logits[tokens[0]] - logits[tokens[1]]).abs())
