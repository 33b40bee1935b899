"""Linear and embedding layers over packed weights, which they unpack at each use."""

import contextlib
from collections.abc import Generator
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dq_lightning.artifacts.packed_matrix import PackedMatrix
from dq_lightning.quantization.fake_quantizer import FakeQuantizer


class PackedWeight(nn.Module):
    """One packed matrix on the model's device, which may have several owners (embedding, head)."""

    fields: Tensor
    scale: Tensor
    zero_point: Tensor | None
    zero_code: Tensor | None

    def __init__(self, matrix: PackedMatrix) -> None:
        super().__init__()
        for name in ("fields", "scale", "zero_point", "zero_code"):
            self.register_buffer(name, getattr(matrix, name))
        self._layout = replace(matrix, fields=torch.empty(0), scale=torch.empty(0))
        self.keeps = False
        self.kept: Tensor | None = None

    def forward(self) -> Float[Tensor, "rows columns"]:
        """The whole matrix in float32."""
        kept = self.kept  # read once: another thread's block may end in between
        if kept is not None:
            return kept
        packed = self._matrix(self.fields, self.scale, self.zero_point, self.zero_code)
        unpacked = packed.dequantize()
        self.kept = unpacked if self.keeps else None
        return unpacked

    def rows(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch columns"]:
        """These rows of the matrix in float32; no other row is unpacked."""
        chosen = ids.flatten()
        parts = [
            part if part is None or part.shape[0] == 1 else part[chosen]
            for part in (self.scale, self.zero_point, self.zero_code)
        ]
        scale, zero_point, zero_code = parts
        assert scale is not None
        rows = self._matrix(self.fields[chosen], scale, zero_point, zero_code).dequantize()
        return rows.view(*ids.shape, -1)

    def _matrix(
        self, fields: Tensor, scale: Tensor, zero_point: Tensor | None, zero_code: Tensor | None
    ) -> PackedMatrix:
        return replace(
            self._layout, fields=fields, scale=scale, zero_point=zero_point, zero_code=zero_code
        )


@contextlib.contextmanager
def unpacked_once(model: nn.Module) -> Generator[None, None, None]:
    """Within the block a matrix stays unpacked after its first use, as decoding wants it."""
    weights = [module for module in model.modules() if isinstance(module, PackedWeight)]
    for weight in weights:
        weight.keeps = True
    try:
        yield
    finally:
        for weight in weights:
            weight.keeps, weight.kept = False, None


class PackedLinear(nn.Linear):
    """A linear layer y = q_a(x) W^T + b, the arithmetic of FakeQuantizedLinear to the last bit."""

    packed: PackedWeight
    input_quantizer: FakeQuantizer | None

    def forward(self, input: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Multiply the quantized input by the unpacked weight, then add the bias."""
        x = input if self.input_quantizer is None else self.input_quantizer(input)
        bias = cast(Tensor | None, self.bias)
        if bias is None or x is input:
            return F.linear(x, self.packed(), bias)
        return F.linear(x, self.packed()).add_(bias)


class PackedEmbedding(nn.Embedding):
    """An embedding that looks rows of a packed matrix up."""

    packed: PackedWeight

    def forward(self, input: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        """Unpack the rows of these tokens or positions."""
        return self.packed.rows(input)


def packed_linear(
    linear: nn.Linear, weight: PackedWeight, input_quantizer: FakeQuantizer | None
) -> nn.Linear:
    """The linear layer with a packed weight; its bias stays the same Parameter."""
    packed = cast(PackedLinear, _taken_over(linear, PackedLinear, weight))
    packed.input_quantizer = input_quantizer
    return packed


def packed_embedding(embedding: nn.Embedding, weight: PackedWeight) -> nn.Embedding:
    """The embedding with a packed weight.

    Subclasses do more than a lookup (BART's scale the rows, or count positions from 2): their own
    `forward` stays, and the lookup that it inherits becomes the packed one.
    """
    kind = type(embedding)
    bases = (PackedEmbedding,) if kind is nn.Embedding else (kind, PackedEmbedding)
    return _taken_over(embedding, type(f"Packed{kind.__name__}", bases, {}), weight)


def _taken_over(module: nn.Module, kind: type[nn.Module], weight: PackedWeight) -> Any:
    replacement: Any = kind.__new__(kind)
    replacement.__dict__.update(module.__dict__)
    del replacement.weight
    # Models read the device and the type of a weight, never its values: a stand-in has both.
    replacement.register_buffer("weight", torch.empty(0), persistent=False)
    replacement.packed = weight
    return replacement
