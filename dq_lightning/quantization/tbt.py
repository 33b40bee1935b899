"""The choice of TBT at each bit-width."""

from dq_lightning.quantization.asymmetric import AsymmetricQuantizer
from dq_lightning.quantization.elastic import ElasticQuantizer
from dq_lightning.quantization.fake_quantizer import FakeQuantizer, Granularity
from dq_lightning.quantization.symmetric import SymmetricQuantizer
from dq_lightning.quantization.tbt_binary import TbtBinaryQuantizer
from dq_lightning.quantization.tbt_ternary import TbtTernaryQuantizer


def tbt(bits: int, granularity: Granularity | str) -> FakeQuantizer:
    """Build TBT's weight quantizer: binary at 1 bit, ternary at 2, symmetric above.

    (TBT, Liu et al. 2023, "Binary and Ternary Natural Language Generation", section 3.)

    >>> [type(tbt(bits, "per_row")).__name__ for bits in (1, 2, 4)]
    ['TbtBinaryQuantizer', 'TbtTernaryQuantizer', 'SymmetricQuantizer']
    """
    if bits == 1:
        return TbtBinaryQuantizer(bits, granularity)
    if bits == 2:
        return TbtTernaryQuantizer(bits, granularity)
    return SymmetricQuantizer(bits, granularity)


def tbt_activation(bits: int, granularity: Granularity | str, signed: bool = True) -> FakeQuantizer:
    """Build TBT's activation quantizer: elastic at 1 and 2 bits, linear above.

    The elastic scale is one learned number a module, whatever the granularity asked for. Linear is
    symmetric, or asymmetric for the inputs of second feed-forward matrices and for attention
    probabilities (signed=False). Differs from the paper: the range of the latter holds 0, so that
    padding changes nothing.

    >>> tbt_activation(8, "per_token"), tbt_activation(2, "per_token").granularity.value
    (SymmetricQuantizer(bits=8, granularity=per_token), 'per_tensor')
    """
    granularity = Granularity.parse(granularity)
    if bits in (1, 2):
        return ElasticQuantizer(bits, Granularity.PER_TENSOR, signed)
    if signed:
        return SymmetricQuantizer(bits, granularity)
    return AsymmetricQuantizer(bits, granularity, include_zero=True)
