"""How many examples are computed at once: what a training step keeps in memory beside weights, gradients and optimizer,
and what the machine has for it.

What is kept is estimated from the network's sizes and the texts' lengths. What there is follows from the machine's
memory as a whole, not from what is free at the moment: so a round that was killed splits its batches as before, and
ends with the same weights.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from models.hardware import GIB, memory_limit

CPU_STEP = int(1.5 * GIB)
"""On a CPU more is no faster: one long question at a time keeps it as busy as sixteen (docs/measurements.md)."""
CPU_SHARE, GPU_SHARE = 0.25, 0.8  # of the machine's memory, of the GPU's
ADAM_BYTES = 16  # of a trained weight: itself, its gradient and AdamW's two means, in float32

# Numbers that are kept until the gradients are computed: rather too many than too few. `python -m benchmarks.memory`
# shows them beside what was measured.
OF_LAYERS = 1.5  # for each number that a layer's matrices read or write
OF_ATTENTION = 4.0  # for each pair of tokens that look at each other: scores, shares, dropout's mask, their product
OF_LOGITS = 3.0
OF_READ_TOKENS = 0.25  # keys and values of a token that was read before, as a share of all that layers make of one


@dataclass(frozen=True)
class Footprint:
    """What decides the memory that a stack of layers needs.

    Attributes:
        depth: layers.
        entries: numbers that all their matrices read and write for one token.
        heads: attention heads of all layers.
        logits: numbers of the output layer; 0 without one.
    """

    depth: int
    entries: int
    heads: int
    logits: int = 0

    def training_bytes(self, rows: int, tokens: int, before: int = 0) -> int:
        """What rows of so many tokens keep until their gradients are computed.

        Args:
            before: tokens that each row was preceded by, which an earlier pass has read.
        """
        return 4 * rows * int(self._of_layers(tokens, before) + OF_LOGITS * self.logits * tokens)

    def reading_bytes(self, rows: int, tokens: int, before: int = 0) -> int:
        """What they need without gradients: one layer at a time."""
        return 4 * rows * int(self._of_layers(tokens, before) / self.depth + OF_LOGITS * self.logits * tokens)

    def _of_layers(self, tokens: int, before: int) -> float:
        attention = OF_ATTENTION * self.heads * tokens * (tokens + before)
        return OF_LAYERS * self.entries * (tokens + OF_READ_TOKENS * before) + attention


def footprint(stack: torch.nn.Module, config: Any, *, decoder: bool) -> Footprint:
    """Of a transformers model, or of its encoder.

    Args:
        stack: whose matrices are counted, embeddings left out.
        config: the model's.
        decoder: whether the stack writes: then an encoder-decoder's decoder is counted, without its encoder.
    """
    own = getattr(config, "decoder" if decoder else "encoder", config)  # an EncoderDecoderModel has a config for each
    depths = ("num_decoder_layers", "decoder_layers") if decoder else ("encoder_layers",)
    depth = next((found for name in depths if (found := getattr(own, name, None))), own.num_hidden_layers)
    entries = _entries(stack)
    logits = 0
    if decoder:
        head = stack.get_output_embeddings().weight  # type: ignore[operator]
        logits = head.shape[0]
        entries -= sum(head.shape)
        if config.is_encoder_decoder:
            entries -= _entries(stack.get_encoder())  # type: ignore[operator]
    return Footprint(depth, entries, own.num_attention_heads * depth, logits)


def _entries(module: torch.nn.Module) -> int:
    layers = (one for one in module.modules() if not isinstance(one, torch.nn.Embedding))
    weights = (getattr(layer, "weight", None) for layer in layers)
    return sum(sum(weight.shape) for weight in weights if isinstance(weight, torch.Tensor) and weight.dim() == 2)


def room(device: torch.device, weights: Iterable[torch.Tensor] = ()) -> int:
    """Bytes that a step may take on a device, beside the weights.

    Args:
        weights: those that are trained; on a CPU they do not count.
    """
    if device.type == "cuda":
        trained = ADAM_BYTES * sum(weight.numel() for weight in weights)
        return max(GIB, int(GPU_SHARE * torch.cuda.get_device_properties(device).total_memory) - trained)
    return min(CPU_STEP, int(CPU_SHARE * memory_limit()))


def fitting(needed: int, available: int, examples: int) -> int:
    """How many of the examples, which together need so many bytes, are computed at once; at least 1."""
    return examples if needed <= available else max(1, examples * available // needed)
