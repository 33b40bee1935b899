"""A packed file of random weights, for its bytes on disk."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from dq_lightning.artifacts.packed_file import write_packed
from dq_lightning.artifacts.packed_student import pack_student
from dq_lightning.models.family import ModelFamily
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import QuantizationRecipe

_SPREAD = 0.02


def write_random_student(
    path: Path,
    config: PreTrainedConfig,
    family: ModelFamily,
    layers: tuple[int, int],
    recipe: QuantizationRecipe,
    tied: bool = True,
    save_dtype: torch.dtype = torch.float32,
) -> int:
    """Quantize and pack a model with random weights; its bytes on disk.

    A run's file holds a tokenizer and a card as well, and codes that training made more or less
    alike than those of Gaussian weights. Learned scales are not rounded to save_dtype, as those of
    a run are: with float16 they take 4 bytes here and 2 there.
    """
    student = random_model(config, family, layers, tied, save_dtype)
    prepare(student, recipe, family)
    return write_packed(path, pack_student(student, family))


def random_model(
    config: PreTrainedConfig,
    family: ModelFamily,
    layers: tuple[int, int],
    tied: bool = True,
    save_dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """The model of a config at (encoder, decoder) layers, its weights rounded to save_dtype.

    Gaussian with the family's own standard deviations. So are the biases and norms, around what
    they begin with: as constants they would compress to nothing, which trained ones do not.
    """
    config = copy.deepcopy(config)
    setattr(config, family.encoder_layers_key, layers[0])
    setattr(config, family.decoder_layers_key, layers[1])
    torch.manual_seed(0)
    model = family.model_class(config).eval()
    if not tied:
        head: Any = model.get_submodule(family.head)
        weight = model.get_parameter(f"{family.head}.weight")
        head.weight = nn.Parameter(weight.detach()[torch.randperm(len(weight))].clone())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter), alpha=_SPREAD)
            parameter.copy_(parameter.to(save_dtype))
    return model
