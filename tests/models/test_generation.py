"""Written texts: the same as transformers' greedy ones, and the same for the same seeds whatever shares the batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models import generation
from models.configs import LoraConfig, StudentConfig
from models.decoding import DecoderOnlyDecoder, EncoderDecoderDecoder, decoder_for
from models.errors import BadStudent
from models.generation import Generated, generate
from models.student import Student, pad
from models.student_loading import load_student, make_student
from models.t5_decoding import T5Decoder
from tests.models.students import ALL_STUDENTS, LIMITS, STUDENTS, WINDOWED, bart, llama, new_student, t5

INPUTS = [f"explain: Ann has {n} apples{' and a brother' * (n % 4)}. How many?" for n in range(24)]
SEEDS = [1000 + n for n in range(24)]
LONG = 40  # tokens; beyond the 32 by which the decoders' room grows


def lively(student: Student) -> Student:
    """Random weights, scaled up so that texts differ and some of them end."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in student.named_parameters():
            if weight.ndim == 2 and "embed" not in name and "shared" not in name and "wte" not in name:
                weight.mul_(2).add_(torch.randn_like(weight) * 0.05)
    return student.double()


@pytest.fixture(scope="module", params=STUDENTS)
def student(request: pytest.FixtureRequest) -> Student:
    return lively(STUDENTS[request.param]())


@torch.inference_mode()
def by_transformers(student: Student, texts: Sequence[str], max_new_tokens: int) -> list[list[int]]:
    """The tokens that transformers' own greedy generation writes, up to the end token."""
    rows = student.input_ids(texts)
    left = student.kind == "decoder-only"  # where it wants its padding
    ids, mask = pad([row[::-1] for row in rows] if left else rows, student.pad_id)
    if left:
        ids, mask = ids.flip(1), mask.flip(1)
    written = student.model.generate(
        input_ids=ids,
        attention_mask=mask.long(),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=student.pad_id,
        eos_token_id=student.eos_id,
    )[:, ids.shape[1] if left else 1 :].tolist()
    return [row[: row.index(student.eos_id) + 1] if student.eos_id in row else row for row in written]


def ended_early(written: list[Generated]) -> int:
    return sum(one.finish_reason == "stop" for one in written)


def test_greedy_texts_are_those_of_transformers(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an end token that ends some of them and not the others."""
    tokens = {token for row in by_transformers(student, INPUTS, LONG) for token in row[2:]}
    for end in sorted(tokens):
        monkeypatch.setattr(student, "eos_id", end)
        written = generate(student, INPUTS, max_new_tokens=LONG, batch_size=len(INPUTS))
        if 4 < ended_early(written) < 20:
            break
    assert 4 < ended_early(written) < 20
    expected = by_transformers(student, INPUTS, LONG)
    assert [one.text for one in written] == student.tokenizer.batch_decode(expected, skip_special_tokens=True)
    assert [one.tokens for one in written] == [len(row) for row in expected]
    assert [one.finish_reason == "stop" for one in written] == [row[-1] == end for row in expected]
    assert len({one.text for one in written}) > 4


@torch.inference_mode()
def by_forward(student: Student, text: str, max_new_tokens: int) -> list[int]:
    """The same for one text, with a pass over all of it for every token: no cache, no padding."""
    ids = student.input_ids([text])[0]
    read = len(ids)
    while len(ids) < read + max_new_tokens and (len(ids) == read or ids[-1] != student.eos_id):
        ids.append(int(student.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[read:]


@pytest.mark.parametrize("name", WINDOWED)
def test_greedy_texts_of_models_with_windows_are_those_of_plain_passes(name: str) -> None:
    student = lively(WINDOWED[name]())
    inputs = [INPUTS[0], INPUTS[3], "2 + 2?", INPUTS[1]]
    written = generate(student, inputs, max_new_tokens=LONG)
    assert [list(one.ids) for one in written] == [by_forward(student, text, LONG) for text in inputs]


@pytest.mark.parametrize("name", ALL_STUDENTS)
def test_the_logits_of_every_step_are_those_of_teacher_forcing(name: str) -> None:
    """Whatever was written, and also when rows have left in between."""
    student = lively(ALL_STUDENTS[name]())
    ids, mask = pad(student.input_ids(INPUTS[:6]), student.pad_id)
    torch.manual_seed(0)
    targets = torch.randint(5, 290, (6, LONG))
    with torch.inference_mode():
        encoded = student.encode(ids, mask)
        expected = student.token_logits(encoded, targets)
        decoder, rows, tokens = decoder_for(student, encoded), torch.arange(6), encoded.start
        for step in range(LONG):
            torch.testing.assert_close(decoder.step(tokens), expected[rows, step], rtol=1e-5, atol=1e-5)
            if step in (3, 33):
                kept = torch.tensor([0, 2, 3, 1][: len(rows) - 2])
                decoder.keep(kept)
                rows = rows[kept]
            tokens = targets[rows, step]


def test_a_t5_takes_the_fast_way_and_others_the_general_one() -> None:
    for student, way in ((t5(), T5Decoder), (bart(), EncoderDecoderDecoder), (llama(), DecoderOnlyDecoder)):
        encoded = student.encode(*pad(student.input_ids(INPUTS[:2]), student.pad_id))
        assert type(decoder_for(student, encoded)) is way


def test_a_t5_with_adapters_writes_with_them(tmp_path: Path) -> None:
    t5().save(tmp_path / "base")
    student = make_student(StudentConfig(model=str(tmp_path / "base"), lora=LoraConfig(rank=4), **LIMITS))
    with torch.no_grad():
        for name, weight in student.named_parameters():
            if "lora_" in name:
                weight.normal_()
    plain = load_student(tmp_path / "base")
    settings: dict[str, Any] = {"max_new_tokens": 12, "batch_size": 24}
    assert generate(student, INPUTS, **settings) != generate(plain, INPUTS, **settings)
    expected = student.tokenizer.batch_decode(by_transformers(student, INPUTS, 12), skip_special_tokens=True)
    assert [one.text for one in generate(student, INPUTS, **settings)] == expected


def test_the_same_seeds_give_the_same_texts_in_any_batch_and_order(student: Student) -> None:
    settings: dict[str, Any] = {"max_new_tokens": LONG, "temperature": 1.0}
    expected = generate(student, INPUTS, seeds=SEEDS, **settings)
    assert len({one.text for one in expected}) == len(INPUTS)
    for size in (1, 5, 24):
        assert generate(student, INPUTS, seeds=SEEDS, batch_size=size, **settings) == expected
    backwards = generate(student, INPUTS[::-1], seeds=SEEDS[::-1], batch_size=7, **settings)
    assert backwards[::-1] == expected
    alone = generate(student, [INPUTS[3]], seeds=[SEEDS[3]], **settings)
    assert alone == [expected[3]]


def test_other_seeds_give_other_texts(student: Student) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0}
    same = [INPUTS[0]] * 20
    texts = [one.text for one in generate(student, same, seeds=range(20), **settings)]
    assert len(set(texts)) > 15  # consecutive seeds of one question too
    assert texts[:10] != [one.text for one in generate(student, same[:10], seeds=range(20, 30), **settings)]


def test_a_longer_limit_goes_on_with_the_same_text(student: Student) -> None:
    short = generate(student, INPUTS, max_new_tokens=6, temperature=1.0, seeds=SEEDS)
    longer = generate(student, INPUTS, max_new_tokens=12, temperature=1.0, seeds=SEEDS)
    for one, more in zip(short, longer, strict=True):
        assert more.text.startswith(one.text.rstrip("\ufffd"))
        assert more == one or one.finish_reason == "length"


def test_a_text_ends_by_itself_or_at_the_limit() -> None:
    student = t5()
    with torch.no_grad():
        student.model.shared.weight[student.eos_id] = 0  # a logit of 0 among others around 0
    written = generate(student, INPUTS * 20, max_new_tokens=30, temperature=3.0, seeds=range(480))
    stopped = [one for one in written if one.finish_reason == "stop"]
    assert 10 < len(stopped) < 470
    assert all(1 <= one.tokens <= 30 for one in stopped)
    assert all(one.tokens == 30 for one in written if one.finish_reason == "length")
    assert not any("</s>" in one.text or "<pad>" in one.text for one in written)


def test_the_end_token_at_the_limit_is_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    student = t5()
    monkeypatch.setattr(
        generation, "choose", lambda logits, *_: torch.full((len(logits),), student.eos_id, dtype=torch.long)
    )
    assert generate(student, ["a"], max_new_tokens=1) == [Generated("", [student.eos_id], "stop")]
    monkeypatch.setattr(generation, "choose", lambda logits, *_: torch.full((len(logits),), 7, dtype=torch.long))
    [written] = generate(student, ["a"], max_new_tokens=3)
    assert (written.tokens, written.finish_reason) == (3, "length")


def test_no_texts_are_no_texts(student: Student) -> None:
    assert generate(student, [], max_new_tokens=5) == []
    assert generate(student, [], max_new_tokens=5, temperature=1.0, seeds=[]) == []


def test_progress_and_batches() -> None:
    calls: list[tuple[int, int]] = []
    generate(t5(), INPUTS, max_new_tokens=2, batch_size=10, on_progress=lambda *call: calls.append(call))
    assert calls == [(10, 24), (20, 24), (24, 24)]


@pytest.mark.parametrize("training", [True, False])
def test_it_leaves_mode_random_state_and_gradients_alone(training: bool) -> None:
    student = t5().train(training)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first = generate(student, INPUTS[:3], max_new_tokens=5)
    assert torch.equal(torch.rand(3), expected)
    assert student.training == student.model.training == training
    assert first == generate(student, INPUTS[:3], max_new_tokens=5)  # no dropout
    assert all(weight.grad is None for weight in student.parameters())
    assert not any("forward" in vars(module) for module in student.modules())


def test_it_leaves_the_mode_alone_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    student = t5().train()

    def fails(*_: Any) -> Tensor:
        raise RuntimeError("stop")

    monkeypatch.setattr(generation, "choose", fails)
    with pytest.raises(RuntimeError, match="stop"):
        generate(student, INPUTS[:3], max_new_tokens=5)
    assert student.training


@pytest.mark.parametrize("architecture", ["t5", "llama"])
def test_bfloat16_students_write_too(architecture: str) -> None:
    student = new_student(architecture, dtype="bfloat16")
    written = generate(student, INPUTS, max_new_tokens=8, temperature=1.0, seeds=SEEDS)
    assert written == generate(student, INPUTS, max_new_tokens=8, temperature=1.0, seeds=SEEDS)
    assert len({one.text for one in written}) > 5


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
        ({"temperature": -1.0}, "temperature must be 0 .* not -1.0"),
        ({"temperature": float("nan")}, "temperature must be 0 .* not nan"),
        ({"temperature": float("inf")}, "temperature must be 0 .* not inf"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"temperature": 1.0}, "Sampling needs `seeds`"),
        ({"temperature": 1.0, "seeds": [1]}, "There are 24 texts, but 1 seeds"),
        ({"temperature": 1.0, "seeds": [-1] * 24}, "seeds must be from 0 to 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadStudent, match=reason):
        generate(t5(), INPUTS, **{"max_new_tokens": 5, **settings})


def test_a_text_too_long_for_the_model_is_refused() -> None:
    long = "word " * 120
    with pytest.raises(BadStudent, match=r"has \d+ tokens; with max_new_tokens 200 the student needs \d+ positions"):
        generate(new_student("llama"), [long], max_new_tokens=200)
    generate(t5(), [long], max_new_tokens=2)  # a T5's positions are relative
