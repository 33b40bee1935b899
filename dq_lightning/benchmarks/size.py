"""Sizes of a quantized model by four rules, counted without weights.

``python -m dq_lightning.benchmarks.size teacher=... quant.bits=... student.layers=...`` prints them
(see size_command.py).
"""

import copy
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from dq_lightning.models.family import ModelFamily
from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.modules import FakeQuantizedEmbedding
from dq_lightning.quantization.recipe import FULL_PRECISION, Bits, Head

STORED_BITS = 16
"""Of everything that a packed file does not hold as codes: scales, norms, biases."""
POSITION_BITS = 8


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
    sizes = _counted(model)
    return NominalSize(
        published_bytes=_bytes(sizes, weight_bits),
        reference_rule_bytes=_bytes(sizes, reference_bits),
        full_precision_bytes=_bytes(sizes, {}),
    )


def as_evaluated_bytes(
    model: nn.Module, bits: Bits, family: ModelFamily, exclude: tuple[str, ...] = ()
) -> int:
    """The reference code's rule with the head's matrix in fp32, as DQ-BART was evaluated.

    A tied head is the vocabulary matrix, so the whole matrix counts in fp32, once: the embedding
    can be quantized from it.
    """
    chosen = _parameter_bits(model, bits, family, exclude, bias_bits=FULL_PRECISION)
    chosen[id(model.get_parameter(f"{family.head}.weight"))] = FULL_PRECISION
    return _bytes(_counted(model), chosen)


def packed_bytes(
    model: nn.Module,
    bits: Bits,
    family: ModelFamily,
    head: Head = "tied",
    exclude: tuple[str, ...] = (),
) -> int:
    """An estimate of the tensors of a packed file; its header and the tokenizer come on top.

    Quantized matrices: codes at their bits, each matrix rounded up to a byte, and one fp16 scale a
    row. Embeddings that the family keeps (positions): the same at 8 bits, or nothing where the
    model computes them. Everything else (biases, norms, saved buffers, excluded modules and sites
    at 32 bits): fp16. A head that is not `tied` is a matrix of its own, in fp16 or at 8 bits.
    """
    chosen = _parameter_bits(model, bits, family, exclude, bias_bits=FULL_PRECISION)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and _matches(name, family.keep_embeddings):
            chosen[id(module.weight)] = POSITION_BITS
    total = 0
    matrix = model.get_parameter(f"{family.head}.weight")
    own = sum(p is matrix for _, p in model.named_parameters(remove_duplicate=False)) == 1
    if head != "tied" or _matches(family.head, exclude):
        width = FULL_PRECISION if head != "int8" or _matches(family.head, exclude) else 8
        if own:
            chosen[id(matrix)] = width
        elif chosen.get(id(matrix), FULL_PRECISION) < FULL_PRECISION:
            total += _stored_bytes(matrix, width)
    computed = family.computed_weights
    stored = {
        n: t for n, t in model.state_dict(keep_vars=True).items() if not _matches(n, computed)
    }
    tensors = {id(tensor): tensor for tensor in stored.values()}
    return total + sum(
        _stored_bytes(tensor, chosen.get(key, FULL_PRECISION)) for key, tensor in tensors.items()
    )


def _stored_bytes(tensor: Tensor, bits: int) -> int:
    if bits == FULL_PRECISION:
        return tensor.numel() * STORED_BITS // 8
    return -(-tensor.numel() * bits // 8) + tensor.shape[0] * STORED_BITS // 8


def meta_model(
    config: PreTrainedConfig, family: ModelFamily, layers: tuple[int, int], tied: bool = True
) -> nn.Module:
    """The model of a config at (encoder, decoder) layers, without memory for its weights.

    tied: False gives the head a matrix of its own, which a T5 config cannot say.
    """
    config = copy.deepcopy(config)
    setattr(config, family.encoder_layers_key, layers[0])
    setattr(config, family.decoder_layers_key, layers[1])
    with torch.device("meta"):
        model = family.model_class(config)
    if not tied:
        head = model.get_submodule(family.head)
        head.weight = nn.Parameter(torch.empty_like(model.get_parameter(f"{family.head}.weight")))
    return model


def _counted(model: nn.Module) -> dict[int, int]:
    """The Parameters' sizes; scales do not count, computed or learned."""
    modules = [module for module in model.modules() if isinstance(module, FakeQuantizer)]
    learned = {id(parameter) for module in modules for parameter in module.parameters()}
    return {id(p): p.numel() for p in model.parameters() if id(p) not in learned}


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _bytes(sizes: dict[int, int], bits: dict[int, int]) -> int:
    total = sum(size * bits.get(key, FULL_PRECISION) for key, size in sizes.items())
    return -(-total // 8)


def _parameter_bits(
    model: nn.Module, bits: Bits, family: ModelFamily, exclude: tuple[str, ...], bias_bits: int
) -> dict[int, int]:
    found: dict[int, int] = {}
    for name, module in model.named_modules():
        if _matches(name, exclude):
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
    return type(module) in known and not _matches(name, family.keep_embeddings)


if __name__ == "__main__":
    from dq_lightning.benchmarks.size_command import main

    main()
