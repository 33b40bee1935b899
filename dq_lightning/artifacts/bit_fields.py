"""Small unsigned integers, several to a byte."""

import torch
from jaxtyping import UInt8
from torch import Tensor

WIDTHS = (1, 2, 4, 8)
"""Bits of a field: whole fields to a byte."""


def pack_fields(values: UInt8[Tensor, "rows columns"], bits: int) -> UInt8[Tensor, "rows bytes"]:
    """Put 8 / bits values into each byte, the first lowest; rows end on a byte, filled with 0.

    >>> pack_fields(torch.tensor([[1, 2, 3, 0, 1]], dtype=torch.uint8), bits=2)
    tensor([[57,  1]], dtype=torch.uint8)
    """
    per_byte = 8 // bits
    rows, columns = values.shape
    padded = torch.nn.functional.pad(values, (0, -columns % per_byte))
    fields = padded.view(rows, -1, per_byte)
    packed = fields[..., 0].clone()
    for place in range(1, per_byte):
        packed |= fields[..., place] << (place * bits)
    return packed


def unpack_fields(
    packed: UInt8[Tensor, "rows bytes"], bits: int, columns: int
) -> UInt8[Tensor, "rows columns"]:
    """Give back what `pack_fields` packed.

    >>> unpack_fields(torch.tensor([[57, 1]], dtype=torch.uint8), bits=2, columns=5)
    tensor([[1, 2, 3, 0, 1]], dtype=torch.uint8)
    """
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
    fields = (packed[..., None] >> shifts) & (2**bits - 1)
    return fields.flatten(-2)[:, :columns]
