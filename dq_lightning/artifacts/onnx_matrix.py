"""A packed matrix in the form that onnxruntime's MatMulNBits reads."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dq_lightning.artifacts.bit_fields import pack_fields, unpack_fields
from dq_lightning.artifacts.packed_matrix import PackedMatrix

BLOCK = 128
"""Columns that share a scale: with more, onnxruntime has no integer kernel for 2 bits."""
_BLOCKS = (128, 64, 32, 16)


@dataclass(frozen=True)
class BlockMatrix:
    """value = (field - zero_point) * scale, with a scale for every `block` columns of a row.

    fields: (rows, blocks, block bits / 8), low bits first, the last block filled up.
    scale: (rows, blocks) in float32. zero_point: (rows, blocks), or None for 2^(bits - 1).
    """

    fields: NDArray[np.uint8]
    scale: NDArray[np.float32]
    zero_point: NDArray[np.uint8] | None
    bits: int
    block: int
    columns: int

    @property
    def rows(self) -> int:
        return self.fields.shape[0]

    def packed_zero_point(self) -> NDArray[np.uint8] | None:
        """(rows, ceil(blocks bits / 8)), as MatMulNBits reads it."""
        if self.zero_point is None:
            return None
        return pack_fields(torch.from_numpy(self.zero_point), self.bits).numpy()


def block_matrix(name: str, matrix: PackedMatrix) -> BlockMatrix:
    """Carry codes over bit for bit, and scales: one of a row is repeated for each of its blocks.

    1-bit fields become 2-bit fields of half the scale. A scale that divides becomes its inverse,
    rounded to float32. ValueError for what MatMulNBits cannot say: zero points that are no whole
    numbers within the fields, and groups that no block size divides.
    """
    block = _block_of(name, matrix)
    fields = unpack_fields(matrix.fields, matrix.bits, matrix.columns)
    scale = matrix.scale.double()
    scale = 1 / scale if matrix.divides else scale
    zero = -matrix.lowest + (
        torch.zeros(1, 1) if matrix.zero_point is None else matrix.zero_point.double()
    )
    bits = matrix.bits
    if bits == 1:
        fields, scale, zero, bits = fields * 2, scale / 2, zero * 2, 2
    _check_zero(name, matrix, zero, bits)
    blocks = -(-matrix.columns // block)
    padded = torch.nn.functional.pad(fields, (0, blocks * block - matrix.columns))
    scales, zeros = (_of_each_block(part, matrix, block, blocks) for part in (scale, zero))
    usual = bool((zeros == 2 ** (bits - 1)).all())
    return BlockMatrix(
        fields=pack_fields(padded, bits).view(matrix.rows, blocks, -1).numpy(),
        scale=scales.float().numpy(),
        zero_point=None if usual else zeros.to(torch.uint8).numpy(),
        bits=bits,
        block=block,
        columns=matrix.columns,
    )


def _block_of(name: str, matrix: PackedMatrix) -> int:
    if matrix.group_size is None:
        return BLOCK
    fitting = [block for block in _BLOCKS if matrix.group_size % block == 0]
    if not fitting:
        raise ValueError(
            f"{name} has groups of {matrix.group_size} columns; ONNX needs a multiple of 16."
        )
    return fitting[0]


def _check_zero(name: str, matrix: PackedMatrix, zero: torch.Tensor, bits: int) -> None:
    whole = bool(((zero == zero.round()) & (zero >= 0) & (zero < 2**bits)).all())
    own = matrix.zero_code is None or matrix.zero_point is None
    own = own or bool((matrix.zero_code == matrix.zero_point).all())
    if not (whole and own):
        raise ValueError(
            f"{name} has zero points that are no whole numbers from 0 to {2**bits - 1}, which ONNX "
            "cannot hold; export a student of a symmetric weight quantizer."
        )


def _of_each_block(
    part: torch.Tensor, matrix: PackedMatrix, block: int, blocks: int
) -> torch.Tensor:
    each = part.expand(matrix.rows, -1)
    repeats = blocks if each.shape[1] == 1 else (matrix.group_size or block) // block
    return each.repeat_interleave(repeats, 1)[:, :blocks].contiguous()
