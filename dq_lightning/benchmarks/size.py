"""Sizes of a quantized model by the published accounting."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from dq_lightning.models.family import ModelFamily
from dq_lightning.quantization.modules import FakeQuantizedEmbedding
from dq_lightning.quantization.recipe import FULL_PRECISION, Bits


@dataclass(frozen=True)
class NominalSize:
    """Bytes of a model's parameters at given bits, without scales.

    published_bytes: linear biases at the weights' bits, which is what reproduces the ratios of
    DQ-BART (13.6x, 16.5x, 27.7x). reference_rule_bytes: biases in fp32, as the released code has
    them. full_precision_bytes: everything in fp32.
    """

    published_bytes: int
    reference_rule_bytes: int
    full_precision_bytes: int


def nominal_bytes(
    model: nn.Module, bits: Bits, family: ModelFamily, exclude: tuple[str, ...] = ()
) -> NominalSize:
    """Count each Parameter once: linear layers at W bits, vocabulary matrices at E bits, else fp32.

    The model may be prepared or not, and on the meta device. A head tied to the embedding is that
    one matrix; buffers (BART's final_logits_bias) do not count. exclude: as in the recipe.
    """
    weight_bits = _parameter_bits(model, bits, family, exclude, bias_bits=bits.weight)
    reference_bits = _parameter_bits(model, bits, family, exclude, bias_bits=FULL_PRECISION)
    sizes = {id(parameter): parameter.numel() for parameter in model.parameters()}
    return NominalSize(
        published_bytes=_bytes(sizes, weight_bits),
        reference_rule_bytes=_bytes(sizes, reference_bits),
        full_precision_bytes=_bytes(sizes, {}),
    )


def _bytes(sizes: dict[int, int], bits: dict[int, int]) -> int:
    total = sum(size * bits.get(key, FULL_PRECISION) for key, size in sizes.items())
    return -(-total // 8)


def _parameter_bits(
    model: nn.Module, bits: Bits, family: ModelFamily, exclude: tuple[str, ...], bias_bits: int
) -> dict[int, int]:
    found: dict[int, int] = {}
    for name, module in model.named_modules():
        if any(fnmatchcase(name, pattern) for pattern in exclude):
            continue
        if name == family.head or _is_token_embedding(name, module, family):
            assert isinstance(module.weight, nn.Parameter)
            found[id(module.weight)] = bits.embedding
        elif isinstance(module, nn.Linear):
            found[id(module.weight)] = bits.weight
            if module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
                found[id(module.bias)] = bias_bits
    return found


def _is_token_embedding(name: str, module: nn.Module, family: ModelFamily) -> bool:
    known = (*family.token_embedding_types, FakeQuantizedEmbedding)
    kept = any(fnmatchcase(name, pattern) for pattern in family.keep_embeddings)
    return type(module) in known and not kept
