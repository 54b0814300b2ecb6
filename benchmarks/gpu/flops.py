"""Floating-point operations that a T5 must do for given lengths, two for each multiply and add.

Counted are the products with weights, those of attention (every real position with every real position, although a
decoder needs half of them) and the vocabulary's logits. Padding counts nothing: it is waste. Embedding, norms, softmax,
dropout and the optimizer are left out, as usual. With widths D (model), I (all heads together), F (feed-forward, M
matrices of it: 2, or 3 where it is gated), V (vocabulary) and L layers, a forward pass takes

    encoder, input of S tokens:            2 L S (4 D I + M D F) + 4 L S^2 I
    decoder, target of T tokens for it:    2 L T (6 D I + M D F) + 4 L (S D I + T^2 I + T S I) + 2 T D V

where 4 L S D I are the decoder's keys and values of the input. A backward pass takes twice as many.
"""

from collections.abc import Sequence
from typing import Any

from models.student_training import TrainingExample


def encoder_flops(config: Any, tokens: int) -> float:
    """Of one input's forward pass; config is a transformers T5Config."""
    width, inner, layers = int(config.d_model), int(config.num_heads * config.d_kv), int(config.num_layers)
    matrices = 4 * width * inner + (3 if config.is_gated_act else 2) * width * int(config.d_ff)
    return 2.0 * layers * tokens * matrices + 4.0 * layers * tokens**2 * inner


def decoder_flops(config: Any, source: int, tokens: int) -> float:
    """Of the forward pass of one target of an input with `source` tokens."""
    width, inner, layers = int(config.d_model), int(config.num_heads * config.d_kv), int(config.num_decoder_layers)
    matrices = 6 * width * inner + (3 if config.is_gated_act else 2) * width * int(config.d_ff)
    attention = source * width * inner + tokens**2 * inner + tokens * source * inner
    return 2.0 * layers * tokens * matrices + 4.0 * layers * attention + 2.0 * tokens * width * int(config.vocab_size)


def step_flops(config: Any, examples: Sequence[TrainingExample]) -> float:
    """Of one training step: both inputs, the answer, one positive and one negative with gradients (three forward
    passes' worth), and every rationale without where there are several to choose from. Which one is chosen is not
    known beforehand: the mean length counts."""
    total = 0.0
    for one in examples:
        asked, explained = len(one.predict_ids), len(one.explain_ids)
        total += 3 * (encoder_flops(config, asked) + encoder_flops(config, explained))
        total += 3 * decoder_flops(config, asked, len(one.answer_ids or ()))
        for own in (one.positives, one.negatives):
            costs = [decoder_flops(config, explained, len(rationale.ids)) for rationale in own]
            if costs:
                total += 3 * sum(costs) / len(costs)
            total += sum(costs) if one.negatives else 0.0
    return total
