"""Other quantizers for the weights of a model that is prepared already."""

from torch import nn

from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.modules import (
    FakeQuantizedEmbedding,
    FakeQuantizedLinear,
    ParameterQuantizer,
)
from dq_lightning.quantization.prepare import PreparableFamily
from dq_lightning.quantization.recipe import QuantizationRecipe

WeightQuantizers = dict[ParameterQuantizer, FakeQuantizer]


def present_quantizers(model: nn.Module) -> WeightQuantizers:
    """The quantizer of every quantized Parameter."""
    owners = [module for module in model.modules() if isinstance(module, ParameterQuantizer)]
    return {owner: owner.quantizer for owner in owners}


def fresh_quantizers(
    model: nn.Module, recipe: QuantizationRecipe, family: PreparableFamily
) -> WeightQuantizers:
    """A new quantizer of `recipe` for every Parameter that `prepare` quantized by it.

    The model keeps its own until `use_quantizers`; an int8 head is no site of the recipe.
    """
    fresh: WeightQuantizers = {}
    for name, module in model.named_modules():
        is_table = isinstance(module, FakeQuantizedEmbedding) or name == family.head
        factory = recipe.embedding if is_table else recipe.weight
        if not isinstance(module, FakeQuantizedEmbedding | FakeQuantizedLinear):
            continue
        owner = module.weight_quantizer
        if owner is None or factory is None or (name == family.head and recipe.head == "int8"):
            continue
        fresh[owner] = factory()
    return fresh


def use_quantizers(quantizers: WeightQuantizers) -> None:
    """Put the quantizers in, and forget what others rounded."""
    for owner, quantizer in quantizers.items():
        owner.quantizer = quantizer
        owner.forget()
