"""Discriminators on encoders that are no T5's: tiny ones with random weights, loaded from folders as users do it."""

import copy
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertLMHeadModel,
    BertModel,
    EncoderDecoderModel,
    FNetConfig,
    FNetForMaskedLM,
    MT5Config,
    MT5ForConditionalGeneration,
)

from models.configs import DiscriminatorConfig
from models.discriminator import Discriminator, load_discriminator, make_discriminator
from models.discriminator_training import DiscriminatorTraining, JudgedExample, collate
from models.encoders import longest_input
from models.errors import BadDiscriminator, TextTooLong
from models.student import EncoderDecoderStudent, Student
from tests.models.encoders import LONGEST, config_of, save_encoder, words
from tests.models.students import QUESTIONS, RATIONALES, t5, tokenizer

ALLOWED = "a T5, BERT, DistilBERT, RoBERTa, ModernBERT or MiniLM sentence encoder."
KINDS = ("bert", "distilbert", "roberta", "modernbert")


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(request.param, tmp_path_factory.mktemp("encoders") / request.param)


@pytest.fixture
def discriminator(folder: Path) -> Discriminator:
    return of(folder)


def of(folder: Path, **settings: Any) -> Discriminator:
    return make_discriminator(DiscriminatorConfig(encoder=str(folder), **settings), t5())


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails where anything connects, even if the failure is swallowed."""
    calls: list[Any] = []

    def note(*address: Any, **_: Any) -> None:
        calls.append(address)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", note)
    monkeypatch.setattr(socket, "getaddrinfo", note)
    yield
    assert calls == []


# --- what it reads ----------------------------------------------------------------------------------------------------


def test_it_reads_first_token_question_separator_rationale_separator(discriminator: Discriminator) -> None:
    tokens = discriminator.tokenizer
    for ids, question, rationale in zip(
        discriminator.pair_ids(QUESTIONS, RATIONALES), QUESTIONS, RATIONALES, strict=True
    ):
        assert ids[0] == tokens.cls_token_id
        middle = ids.index(tokens.sep_token_id)
        assert tokens.decode(ids[1:middle]) == question
        assert tokens.decode(ids[middle + 1 : -1]) == rationale
        assert ids[-1] == tokens.sep_token_id


def test_a_separator_in_a_text_is_text(discriminator: Discriminator) -> None:
    [ids] = discriminator.pair_ids(["a [SEP] b [PAD]"], ["[CLS] c"])
    special = discriminator.tokenizer.all_special_ids
    assert [token in special for token in ids].count(True) == 3  # its own: one before, one between, one at the end
    middle = ids.index(discriminator.end_id)
    assert discriminator.tokenizer.decode(ids[1:middle]) == "a [SEP] b [PAD]"


def test_bert_is_told_question_from_rationale_and_the_others_have_no_word_for_it(discriminator: Discriminator) -> None:
    seen: list[dict[str, Any]] = []
    discriminator.encoder.register_forward_pre_hook(lambda _, __, given: seen.append(given), with_kwargs=True)
    discriminator.score(QUESTIONS[:2], RATIONALES[:2])
    [given] = seen
    if discriminator.encoder.config.model_type != "bert":
        assert given.keys() == {"input_ids", "attention_mask"}
        return
    for ids, types in zip(given["input_ids"].tolist(), given["token_type_ids"].tolist(), strict=True):
        question = ids.index(discriminator.end_id) + 1  # its end counts as its own
        assert types == [0] * question + [1] * (len(ids) - question)


# --- scores -----------------------------------------------------------------------------------------------------------


def test_padding_and_batches_change_no_score(discriminator: Discriminator) -> None:
    alone = discriminator.score(QUESTIONS, RATIONALES, batch_tokens=1)
    torch.testing.assert_close(discriminator.score(QUESTIONS, RATIONALES), alone, rtol=0, atol=1e-6)
    assert len(set(alone.tolist())) == 3


def test_training_lowers_the_loss(discriminator: Discriminator) -> None:
    training = DiscriminatorTraining(discriminator, "bce").train()
    good = discriminator.pair_ids(QUESTIONS, RATIONALES)
    bad = discriminator.pair_ids(QUESTIONS, RATIONALES[1:] + RATIONALES[:1])
    examples = [JudgedExample([one], [other]) for one, other in zip(good, bad, strict=True)]
    batch = collate(examples, range(3), discriminator.pad_id)
    optimizer = torch.optim.AdamW(training.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = training(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    # All that is saved is trained: no layer that nothing goes through.
    assert all(weight.grad is not None for weight in training.parameters())
    assert training.step_bytes(batch) > 0


@pytest.mark.usefixtures("no_network")
def test_a_saved_one_scores_the_same(folder: Path, tmp_path: Path) -> None:
    discriminator = of(folder)
    discriminator.save(tmp_path / "d")
    loaded = load_discriminator(tmp_path / "d")
    assert torch.equal(loaded.score(QUESTIONS, RATIONALES), discriminator.score(QUESTIONS, RATIONALES))
    assert type(loaded.encoder) is type(discriminator.encoder)
    assert loaded.max_tokens == discriminator.max_tokens == LONGEST
    assert {path.suffix for path in (tmp_path / "d").rglob("*")} <= {".safetensors", ".json"}  # no pickle


def test_an_encoder_comes_with_its_weights_and_without_output_layer_or_pooler(folder: Path) -> None:
    discriminator = of(folder)
    published = AutoModelForMaskedLM.from_pretrained(folder).base_model.state_dict()
    encoder = discriminator.encoder.state_dict()
    assert encoder.keys() == published.keys()
    assert all(torch.equal(encoder[name], published[name]) for name in published)


def test_nothing_is_printed_about_weights_that_are_not_needed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = save_encoder("bert", tmp_path / "bert")
    capfd.readouterr()
    of(folder)
    assert capfd.readouterr() == ("", "")


def test_dropout_is_the_one_asked_for(folder: Path) -> None:
    assert {module.p for module in of(folder, dropout=0.3).modules() if isinstance(module, torch.nn.Dropout)} == {0.3}


# --- how much it takes ------------------------------------------------------------------------------------------------


def test_the_encoders_positions_bound_the_pairs(discriminator: Discriminator) -> None:
    assert discriminator.max_tokens == longest_input(discriminator.encoder) == LONGEST
    around = len(discriminator.pair_ids([""], [""])[0])
    longest = "&" * (LONGEST - around)  # one token each
    assert [len(ids) for ids in discriminator.pair_ids(["", ""], [longest, f"{longest}&"])] == [LONGEST, LONGEST + 1]
    assert discriminator.score([""], [longest]).shape == (1,)
    with pytest.raises(TextTooLong, match=rf"more than {LONGEST} tokens; .* begins ''. Leave these rationales out."):
        discriminator.score([""], [f"{longest}&"])


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])  # ModernBERT's positions have no end
def test_that_bound_is_the_last_position_there_is(kind: str, tmp_path: Path) -> None:
    discriminator = of(save_encoder(kind, tmp_path / kind))
    ids = torch.full((1, LONGEST + 1), discriminator.end_id)
    discriminator(ids[:, 1:], torch.ones_like(ids[:, 1:]).bool())
    with pytest.raises((IndexError, RuntimeError)):
        discriminator(ids, torch.ones_like(ids).bool())


def test_a_smaller_max_tokens_is_kept(folder: Path) -> None:
    discriminator = of(folder, max_tokens=40)
    assert discriminator.max_tokens == 40
    with pytest.raises(TextTooLong, match=r"Raise discriminator.max_tokens or leave these rationales out\."):
        discriminator.score([QUESTIONS[0]], [RATIONALES[2] * 2])


# --- other students' encoders -----------------------------------------------------------------------------------------


def two_berts() -> Student:
    tokens = words(eos_token="[SEP]")
    encoder = config_of("bert", tokens)
    decoder = copy.deepcopy(encoder)
    decoder.is_decoder = decoder.add_cross_attention = True
    torch.manual_seed(0)
    model: Any = EncoderDecoderModel(encoder=BertModel(encoder), decoder=BertLMHeadModel(decoder)).eval()
    model.config.decoder_start_token_id, model.config.pad_token_id = tokens.cls_token_id, tokens.pad_token_id
    return EncoderDecoderStudent(model, tokens, max_input_tokens=64, max_target_tokens=64)


def test_the_encoder_of_a_student_made_of_two_berts(tmp_path: Path) -> None:
    student = two_berts()
    discriminator = make_discriminator(DiscriminatorConfig(), student)
    weights = student.model.encoder.state_dict()
    assert discriminator.encoder.state_dict().keys() == {name for name in weights if not name.startswith("pooler.")}
    assert all(torch.equal(weights[name], weight) for name, weight in discriminator.encoder.state_dict().items())
    assert discriminator.max_tokens == LONGEST
    discriminator.save(tmp_path / "d")
    scores = discriminator.score(QUESTIONS, RATIONALES)
    assert torch.equal(load_discriminator(tmp_path / "d").score(QUESTIONS, RATIONALES), scores)


def test_the_encoder_of_an_mt5(tmp_path: Path) -> None:
    tokens = tokenizer()
    settings = MT5Config(vocab_size=len(tokens), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    settings.decoder_start_token_id = tokens.pad_token_id
    student = EncoderDecoderStudent(MT5ForConditionalGeneration(settings).eval(), tokens)
    student.save(tmp_path / "mt5")
    scores = make_discriminator(DiscriminatorConfig(), student).score(QUESTIONS, RATIONALES)
    assert torch.equal(of(tmp_path / "mt5").score(QUESTIONS, RATIONALES), scores)


# --- refusals ---------------------------------------------------------------------------------------------------------


def refusal(folder: Path) -> str:
    """The one line that a folder is refused with."""
    with pytest.raises(BadDiscriminator) as caught:
        of(folder)
    line = str(caught.value)
    assert "\n" not in line
    assert str(folder) in line
    return line


def test_what_is_no_encoder_is_refused(tmp_path: Path, tiny_llama: Path) -> None:
    tokens = words()
    no_encoder = f"from which no encoder can be taken. Allowed: 'student', 'new', or the folder or hub id of {ALLOWED}"
    assert refusal(tiny_llama).endswith(f"is a llama, {no_encoder}")
    settings = config_of("bert", tokens)
    settings.is_decoder = True
    others = {
        "bert": BertLMHeadModel(settings),  # reads only what is before a token
        "bart": BartForConditionalGeneration(
            BartConfig(vocab_size=300, d_model=16, encoder_layers=1, decoder_layers=1)
        ),
        "fnet": FNetForMaskedLM(FNetConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1)),  # cannot skip padding
    }
    for kind, model in others.items():
        model.save_pretrained(tmp_path / kind)
        tokens.save_pretrained(tmp_path / kind)
        assert refusal(tmp_path / kind).endswith(f"is a {kind}, {no_encoder}")


def test_an_encoder_without_all_its_weights_is_refused(tmp_path: Path) -> None:
    folder = save_encoder("bert", tmp_path / "bert")
    settings = BertConfig.from_pretrained(folder)
    settings.num_hidden_layers = 3
    settings.save_pretrained(folder)
    assert "has no weights for encoder.layer.2." in refusal(folder)
    assert refusal(folder).endswith("(16 missing). Take a folder that holds all of the bert.")


def test_pickles_are_refused(tmp_path: Path) -> None:
    folder = save_encoder("bert", tmp_path / "bert")
    torch.save(AutoModelForMaskedLM.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "cannot be loaded: Error no file named model.safetensors" in refusal(folder)


def test_a_tokenizer_with_nothing_to_put_between_is_refused(tmp_path: Path) -> None:
    folder = save_encoder("bert", tmp_path / "bert")
    words(sep_token=None).save_pretrained(folder)
    with pytest.raises(BadDiscriminator, match=r"has neither an end nor a separator token .* add one to it"):
        of(folder)
