"""Sizes of a quantized model by four rules, counted without weights.

``python -m dq_lightning.benchmarks.size teacher=... quant.bits=... student.layers=...`` prints them
(see size_command.py).
"""

import copy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from dq_lightning.artifacts.packed_matrix import pack_matrix
from dq_lightning.models.family import ModelFamily
from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.modules import FakeQuantizedEmbedding
from dq_lightning.quantization.recipe import (
    FULL_PRECISION,
    Bits,
    QuantizationRecipe,
    QuantizerFactory,
)
from dq_lightning.quantization.symmetric import SymmetricQuantizer

_EIGHT_BITS = partial(SymmetricQuantizer, 8, "per_row")
"""Of positions, and of a head at 8 bits."""


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
    recipe: QuantizationRecipe,
    family: ModelFamily,
    save_dtype: torch.dtype = torch.float32,
) -> int:
    """An estimate of the tensors of a packed file before compression; header and files come on top.

    Quantized matrices: codes at their bits, each matrix rounded up to a byte, and scales and zero
    points as many and as wide as the file has them (learned scales in fp32). Embeddings that the
    family keeps (positions): the same at 8 bits and a scale a row, or nothing where the model
    computes them. Everything else (biases, norms, excluded modules and sites at 32 bits, a head
    that is a matrix of its own in full precision): fp16 with save_dtype float16, else fp32; of
    bfloat16 that is the most it can take. Saved buffers are zeros, which are stored in fp16.
    """
    quantizers = _stored_quantizers(model, recipe, family)
    total = 0
    matrix = model.get_parameter(f"{family.head}.weight")
    own = sum(p is matrix for _, p in model.named_parameters(remove_duplicate=False)) == 1
    excluded = _matches(family.head, recipe.exclude)
    if recipe.head != "tied" or excluded:
        of_head = _EIGHT_BITS if recipe.head == "int8" and not excluded else None
        if own:
            quantizers[id(matrix)] = of_head
        elif quantizers.get(id(matrix)) is not None:
            total += _stored_bytes(matrix, of_head, save_dtype)
    computed = family.computed_weights
    stored = {
        n: t for n, t in model.state_dict(keep_vars=True).items() if not _matches(n, computed)
    }
    tensors = {id(tensor): tensor for tensor in stored.values()}
    return total + sum(
        _stored_bytes(tensor, quantizers.get(key), save_dtype) for key, tensor in tensors.items()
    )


def _stored_quantizers(
    model: nn.Module, recipe: QuantizationRecipe, family: ModelFamily
) -> dict[int, QuantizerFactory | None]:
    """What turns each Parameter into codes, by its id; one that stays a float has none."""
    bits, made = recipe.bits, {"weight": recipe.weight, "embedding": recipe.embedding}
    found: dict[int, QuantizerFactory | None] = {
        key: made[site]
        for key, site in _sites(model, family, recipe.exclude).items()
        if site in made and getattr(bits, site) < FULL_PRECISION
    }
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and _matches(name, family.keep_embeddings):
            found[id(module.weight)] = _EIGHT_BITS
    return found


def _stored_bytes(tensor: Tensor, factory: QuantizerFactory | None, dtype: torch.dtype) -> int:
    if factory is None:
        half = dtype == torch.float16 or not isinstance(tensor, nn.Parameter)
        return tensor.numel() * (2 if half else 4)
    quantizer, (rows, columns) = factory(), tensor.shape
    return -(-tensor.numel() * quantizer.bits // 8) + _scale_bytes(quantizer, rows, columns)


def _scale_bytes(quantizer: FakeQuantizer, rows: int, columns: int) -> int:
    """Of a matrix's scales and zero points, by what two of its rows would be packed with."""
    values = torch.randn(2, columns, generator=torch.Generator().manual_seed(0))
    quantizer.bind(values)
    packed = pack_matrix(quantizer.quantize(values), quantizer.bits, quantizer.group_size)
    parts = (packed.scale, packed.zero_point, packed.zero_code)
    return sum(
        part[0].numel() * part.element_size() * (rows if len(part) == 2 else 1)
        for part in parts
        if part is not None
    )


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
    chosen = {"weight": bits.weight, "embedding": bits.embedding, "bias": bias_bits}
    return {key: chosen[site] for key, site in _sites(model, family, exclude).items()}


def _sites(model: nn.Module, family: ModelFamily, exclude: tuple[str, ...]) -> dict[int, str]:
    """weight, embedding or bias (of a linear layer) by a Parameter's id; others are no site."""
    found: dict[int, str] = {}
    for name, module in model.named_modules():
        if _matches(name, exclude):
            continue
        if name == family.head or _is_token_embedding(name, module, family):
            assert isinstance(module.weight, nn.Parameter)
            found[id(module.weight)] = "embedding"
        elif isinstance(module, nn.Linear):
            found[id(module.weight)] = "weight"
            if module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
                found[id(module.bias)] = "bias"
    return found


def _is_token_embedding(name: str, module: nn.Module, family: ModelFamily) -> bool:
    known = (*family.token_embedding_types, FakeQuantizedEmbedding)
    return type(module) in known and not _matches(name, family.keep_embeddings)


if __name__ == "__main__":
    from dq_lightning.benchmarks.size_command import main

    main()
