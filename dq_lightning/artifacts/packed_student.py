"""A quantized student as everything that a runtime needs: packed matrices and plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dq_lightning.artifacts.packed_config import stored_config, stored_generation
from dq_lightning.artifacts.packed_matrix import PackedMatrix, narrowest, pack_matrix
from dq_lightning.models.family import ModelFamily
from dq_lightning.models.layout import WIDTH
from dq_lightning.quantization.description import QuantizerDescription, describe
from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.modules import (
    FakeQuantizedEmbedding,
    FakeQuantizedLinear,
    ParameterQuantizer,
)
from dq_lightning.quantization.state import weights_alone
from dq_lightning.quantization.symmetric import SymmetricQuantizer

Operands = Mapping[str, QuantizerDescription | None]


@dataclass(frozen=True)
class PackedStudent:
    """A student without its training: nothing in it refers to Parameters or modules.

    family: name of its ModelFamily. config, generation: what is kept of the transformers configs.
    matrices: packed weights; tensors: weights and buffers in float16 or float32. uses: name of the
    matrix or tensor behind each key of the unprepared model's state dict; tied keys name one.
    inputs: quantizer of the input of each quantized linear layer by module name, None for a float
    input; a linear layer that is not in it is not quantized. operands: those of `query`, `key`,
    `value` and `probabilities` of each attention module that has some.
    text: how sources become tokens (max_source_length, source_prefix, languages).
    files: further files by name, such as the tokenizer's and the model card.
    """

    family: str
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    matrices: Mapping[str, PackedMatrix]
    tensors: Mapping[str, Tensor]
    uses: Mapping[str, str]
    inputs: Mapping[str, QuantizerDescription | None]
    operands: Mapping[str, Operands]
    text: Mapping[str, Any] = field(default_factory=dict[str, Any])
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])

    @property
    def nbytes(self) -> int:
        """Bytes of all weights as they are packed, before any compression."""
        floats = sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())
        return floats + sum(matrix.nbytes for matrix in self.matrices.values())

    def weight(self, key: str) -> Tensor:
        """The tensor of a state-dict key in float32, dequantized where it is packed."""
        name = self.uses[key]
        if name in self.matrices:
            return self.matrices[name].dequantize()
        return self.tensors[name].float()


def pack_student(
    student: PreTrainedModel,
    family: ModelFamily,
    *,
    generation: Mapping[str, Any] | None = None,
    text: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
    positions_bits: int = 8,
) -> PackedStudent:
    """Take a prepared student in float32 apart; its quantized weights stay what they are, exactly.

    generation: settings over those of the model's own generation config. positions_bits: of tables
    of learned positions, 8 (symmetric, a scale a position) or 32 (as they are). Raises ValueError
    for a quantizer whose weights or arguments no packed file can hold.
    """
    if positions_bits not in (8, 32):
        raise ValueError(f"positions_bits={positions_bits} is neither 8 nor 32.")
    packing = _Packing(family, positions_bits)
    quantizers = _weight_quantizers(student)
    for key, tensor in weights_alone(student).items():
        packing.add(key, tensor, quantizers.get(key))
    modules = dict(student.named_modules(remove_duplicate=False))
    linears = {n: m for n, m in modules.items() if isinstance(m, FakeQuantizedLinear)}
    return PackedStudent(
        family=family.name,
        config=stored_config(family, student.config),
        generation={**_own_generation(student), **(generation or {})},
        matrices=packing.matrices,
        tensors=packing.tensors,
        uses=packing.uses,
        inputs={name: _described(linear.input_quantizer) for name, linear in linears.items()},
        operands={
            name: {operand: _described(quantizer) for operand, quantizer in operands.items()}
            for name, module in modules.items()
            if (operands := getattr(module, "attention_quantizers", None)) is not None
        },
        text=text or {},
        files=files or {},
    )


class _Packing:
    """Packs tensors one by one; a second use of the same tensor and quantizer is a name for it."""

    def __init__(self, family: ModelFamily, positions_bits: int) -> None:
        self.family, self.positions_bits = family, positions_bits
        self.matrices: dict[str, PackedMatrix] = {}
        self.tensors: dict[str, Tensor] = {}
        self.uses: dict[str, str] = {}
        self._known: dict[tuple[int, int], str] = {}

    def add(self, key: str, tensor: Tensor, quantizer: FakeQuantizer | None) -> None:
        if self.family.computes(key):
            return
        if quantizer is None and self._is_positions(key):
            quantizer = SymmetricQuantizer(self.positions_bits, "per_row")
            identity = (tensor.data_ptr(), -1)
        else:
            identity = (tensor.data_ptr(), id(quantizer))
        name = self._known.setdefault(identity, key)
        self.uses[key] = name
        if name != key:
            return
        if quantizer is None:
            self.tensors[key] = _kept(tensor)
        else:
            self.matrices[key] = _packed(key, tensor, quantizer)

    def _is_positions(self, key: str) -> bool:
        """Whether a key is a table of learned positions that is to be packed."""
        wanted = self.positions_bits == 8 and "embed_positions" in key
        return wanted and self.family.layout.axes_of(key)[-1] == WIDTH


def _packed(key: str, weight: Tensor, quantizer: FakeQuantizer) -> PackedMatrix:
    with torch.no_grad():
        quantized = quantizer.quantize(weight.detach().float())
    try:
        return pack_matrix(quantized, quantizer.bits, quantizer.group_size)
    except ValueError as error:
        raise ValueError(f"{key} cannot be packed as {quantizer}: {error}") from error


def _own_generation(student: PreTrainedModel) -> dict[str, Any]:
    config = student.generation_config
    return {} if config is None else stored_generation(config)  # pyright: ignore


def _kept(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().clone()
    return narrowest(tensor) if tensor.is_floating_point() else tensor


def _weight_quantizers(student: nn.Module) -> dict[str, FakeQuantizer]:
    """The enabled quantizer of each quantized weight by its state-dict key."""
    found: dict[str, FakeQuantizer] = {}
    for name, module in student.named_modules(remove_duplicate=False):
        if isinstance(module, (FakeQuantizedLinear, FakeQuantizedEmbedding)):
            owner: ParameterQuantizer | None = module.weight_quantizer
            if owner is not None and owner.quantizer.enabled:
                found[f"{name}.weight"] = owner.quantizer
    return found


def _described(quantizer: FakeQuantizer | None) -> QuantizerDescription | None:
    if quantizer is None or not quantizer.enabled:
        return None
    return describe(quantizer)
