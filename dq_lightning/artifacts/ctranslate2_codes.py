"""A student's own codes as CTranslate2's int8 weights, whose converter would round them anew."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dq_lightning.artifacts.optional_package import optional_package
from dq_lightning.artifacts.packed_student import PackedStudent


class OwnCodes:
    """The divisor of every row of a student that has one scale and no zero point.

    CTranslate2's value = code / divisor. A row is known by its values: the converter puts queries,
    keys and values together and may drop a row, but leaves rows as they are.
    """

    def __init__(self, student: PackedStudent) -> None:
        self._divisors: dict[bytes, np.float32] = {}
        self.rounded_rows = 0
        for matrix in student.matrices.values():
            in_range = -128 <= matrix.lowest <= 128 - 2**matrix.bits
            if matrix.group_size is None and matrix.zero_point is None and in_range:
                values = matrix.dequantize().numpy()
                scale = matrix.scale.float().expand(matrix.rows, 1).numpy()[:, 0]
                with np.errstate(over="ignore", divide="ignore"):
                    divisors = scale if matrix.divides else 1 / scale
                for key, divisor in zip(_keys(values), divisors, strict=True):
                    if np.isfinite(divisor):  # a dead row may have the scale 0
                        self._divisors[key] = divisor

    def give(self, spec: Any) -> None:
        """Replace every quantizable weight of a converted model by codes and divisors."""
        model_spec = optional_package("ctranslate2.specs.model_spec")

        def quantize(layer: Any, name: str, value: Any) -> None:
            if name.endswith("/weight") and hasattr(layer, "weight_scale"):
                values = value.to("float32").numpy()
                divisors = self._divisors_of(values)
                codes = np.rint(values * divisors[:, None]).astype(np.int8)
                layer.weight = model_spec.NumpyVariable(codes)
                layer.weight_scale = model_spec.NumpyVariable(divisors)

        spec.validate()
        model_spec.visit_spec(spec, quantize)

    def _divisors_of(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Those of the student, and of other rows 127 over the largest magnitude.

        A row of zeros is the same in every grid, and so is never counted as rounded.
        """
        largest = np.abs(values).max(1)
        # below 1e-36, 127 over it would pass the largest float32
        bounded = np.where(largest == 0, 127, np.maximum(largest, 1e-36))
        found = (np.float32(127) / bounded).astype(np.float32)
        for row, key in enumerate(_keys(values)):
            known = self._divisors.get(key)
            self.rounded_rows += known is None and bool(largest[row])
            found[row] = found[row] if known is None else known
        return found


def _keys(values: NDArray[np.float32]) -> Iterator[bytes]:
    """A fingerprint of each row."""
    for row in np.ascontiguousarray(values + 0.0):  # -0.0 is 0.0
        yield hashlib.blake2b(row.tobytes(), digest_size=16).digest()
