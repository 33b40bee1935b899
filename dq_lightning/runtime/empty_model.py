"""The transformers model of a stored config, without any memory for its weights."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dq_lightning.artifacts.packed_config import config_of
from dq_lightning.models.family import ModelFamily


def empty_model(family: ModelFamily, config: Mapping[str, Any]) -> PreTrainedModel:
    """The family's model in eval mode, every tensor on the meta device."""
    with torch.device("meta"):
        model = family.model_class(config_of(family, config))
    return model.eval().requires_grad_(False)


def computed_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Every table that the model computes when it is built (sinusoidal positions), by name."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if hasattr(module, "create_weight"):  # Marian, Pegasus
            found[f"{name}.weight"] = _on_cpu(module).create_weight()
        elif hasattr(module, "make_weights"):  # M2M-100
            size: Any = module
            shape = size.num_positions + size.offset, size.embedding_dim
            found[f"{name}.weights"] = size.get_embedding(*shape, size.padding_idx)
    return found


def _on_cpu(module: nn.Module) -> Any:
    return copy.deepcopy(module).to_empty(device="cpu")
