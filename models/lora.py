"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) on a student: the model's own weights stay as they are,
and each chosen linear layer W learns W + alpha / rank * B A.

For students that are too large to train whole. Everything that needs the peft package is here, and it is imported
only when it is needed: that takes seconds.
"""

import copy
from typing import Any

import torch

from models.configs import LoraConfig
from models.errors import BadStudent

NAME = "default"  # peft's name of an adapter that was not given one


def add_lora(model: Any, config: LoraConfig) -> None:
    """Puts adapters into a transformers model; afterwards only they are trained. Fresh ones change no output.

    Raises:
        BadStudent: no layer has one of the names in `targets`.
    """
    import peft

    adapters = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="all-linear" if config.targets is None else list(config.targets),
    )
    try:
        with torch.random.fork_rng(devices=[]):  # leaves the caller's random state alone
            torch.manual_seed(config.seed)
            model.add_adapter(adapters, NAME)
    except ValueError as error:
        linear = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
        known = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise BadStudent(f"No linear layer is called {config.targets}. There are: {', '.join(known)}.") from error


def has_lora(model: Any) -> bool:
    """Whether the model carries adapters."""
    return bool(getattr(model, "peft_config", None))


def merged(model: Any) -> Any:
    """A copy of the model with its adapters added into its weights: an ordinary transformers model."""
    from peft.tuners.lora import LoraLayer

    plain = copy.deepcopy(model)
    for name, module in list(plain.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            plain.set_submodule(name, module.get_base_layer())
    del plain.peft_config
    plain._hf_peft_config_loaded = False  # transformers' own note that it should save adapters only
    plain._weight_conversions = []  # and its note of the adapter folder's names for the weights, which it would save by
    return plain
