"""One matrix of quantized weights as packed codes and their scales."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from dq_lightning.artifacts.bit_fields import WIDTHS, pack_fields, unpack_fields
from dq_lightning.quantization.fake_quantizer import QuantizedTensor


@dataclass(frozen=True)
class PackedMatrix:
    """code = field + lowest; value = (code - zero_point) * scale, or / scale where `divides`.

    fields: (rows, ceil(columns bits / 8)) bytes, low bits first. scale, zero_point, zero_code:
    (1 or rows, 1) or, with a group_size below `columns`, (rows, groups). zero_code: the code that
    means exactly 0, where one does. scale and the others are in the narrowest exact float type.
    """

    fields: UInt8[Tensor, "rows bytes"]
    bits: int
    columns: int
    lowest: int
    scale: Float[Tensor, "scopes groups"]
    zero_point: Float[Tensor, "scopes groups"] | None = None
    zero_code: Float[Tensor, "scopes groups"] | None = None
    divides: bool = False
    group_size: int | None = None

    @property
    def rows(self) -> int:
        return self.fields.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of fields, scales and zero points, before any compression."""
        parts = (self.fields, self.scale, self.zero_point, self.zero_code)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def codes(self) -> Int[Tensor, "rows columns"]:
        """The integers, as int16."""
        return unpack_fields(self.fields, self.bits, self.columns).to(torch.int16) + self.lowest

    def dequantize(self) -> Float[Tensor, "rows columns"]:
        """The values in float32, bit for bit as the fake quantizer gave them."""
        scale, zero_point, zero_code = (
            None if part is None else self._of_each_value(part.float())
            for part in (self.scale, self.zero_point, self.zero_code)
        )
        assert scale is not None
        inverse = scale if self.divides else None
        return QuantizedTensor(
            self.codes().float(), scale, zero_point, inverse, zero_code
        ).dequantize()

    def _of_each_value(self, part: Tensor) -> Tensor:
        if self.group_size is None:
            return part
        return part.repeat_interleave(self.group_size, -1)[:, : self.columns]


def pack_matrix(
    quantized: QuantizedTensor, bits: int, group_size: int | None = None
) -> PackedMatrix:
    """Pack what a quantizer of `bits` bits made of a matrix; fields are as wide or a step wider.

    Two codes that stand 2 apart (signs) become fields of 1 bit around a zero point of 1/2.
    Raises ValueError for codes that do not fit into 8 bits.
    """
    codes = quantized.codes.to(torch.int16)
    parts = [quantized.scale, quantized.zero_point, quantized.zero_code]
    scale, zero_point, zero_code = (
        None if part is None else _scopes(part.float(), group_size) for part in parts
    )
    assert scale is not None
    if quantized.inverse_scale is not None:
        scale = _scopes(quantized.inverse_scale.float(), group_size)
    if bits == 1 and zero_point is None and bool((codes.abs() == 1).all()):
        codes, scale, zero_point = (codes + 1) // 2, scale * 2, torch.full((1, 1), 0.5)
    lowest, width = _range_of(codes, bits)
    several = group_size is not None and group_size < codes.shape[1]
    return PackedMatrix(
        fields=pack_fields((codes - lowest).to(torch.uint8), width),
        bits=width,
        columns=codes.shape[1],
        lowest=lowest,
        scale=narrowest(scale),
        zero_point=None if zero_point is None else narrowest(zero_point),
        zero_code=None if zero_code is None else narrowest(zero_code),
        divides=quantized.inverse_scale is not None,
        group_size=group_size if several else None,
    )


def narrowest(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The values in float16 where that holds every one of them exactly, else in float32."""
    half = values.to(torch.float16)
    exact = bool(((half.to(values.dtype) == values) | values.isnan()).all())
    return half if exact else values.float()


def _range_of(codes: Tensor, bits: int) -> tuple[int, int]:
    """The lowest code and the width of a field: the usual signed range where the codes are in it.

    So matrices of one recipe have one range, whichever codes each of them happens to use.
    """
    low, high = (int(end) for end in torch.aminmax(codes))
    for width in (width for width in WIDTHS if width >= bits):
        usual = 0 if width == 1 else -(2 ** (width - 1))
        for lowest in (usual, low):
            if lowest <= low and high < lowest + 2**width:
                return lowest, width
    raise ValueError(f"Codes from {low} to {high} do not fit into 8 bits.")


def _scopes(part: Tensor, group_size: int | None) -> Tensor:
    """One number a row or one of all, or one a group, as a matrix."""
    if part.dim() == 0:
        return part.reshape(1, 1)
    return part if group_size is None else part[:, ::group_size].contiguous()
