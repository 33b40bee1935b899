"""What to quantize, at how many bits."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

from dq_lightning.quantization.fake_quantizer import FakeQuantizer

QuantizerFactory = Callable[[], FakeQuantizer]
Head = Literal["tied", "fp", "int8"]
FULL_PRECISION = 32


@dataclass(frozen=True)
class Bits:
    """Bits of weights, embeddings and activations; 32 is full precision."""

    weight: int
    embedding: int
    activation: int

    def __str__(self) -> str:
        return f"{self.weight}-{self.embedding}-{self.activation}"


def parse_bits(value: object) -> Bits:
    """Read `quant.bits`: an int n is n-n-8, a string is the papers' W-E-A.

    >>> str(parse_bits(4)), str(parse_bits("2-2-8"))
    ('4-4-8', '2-2-8')
    """
    parts = [] if isinstance(value, bool) else str(value).strip().split("-")
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit()]
    allowed = range(1, 9) if len(parts) == 1 else (*range(1, 9), FULL_PRECISION)
    valid = len(parts) in (1, 3) and len(numbers) == len(parts)
    if not valid or any(number not in allowed for number in numbers):
        raise ValueError(
            f"quant.bits={value!r} is not a bit-width; write an integer from 1 to 8, "
            "or W-E-A such as 2-2-8 (32 for a site in full precision)."
        )
    return Bits(numbers[0], numbers[0], 8) if len(numbers) == 1 else Bits(*numbers)


def at_bits(quantizer: Callable[..., FakeQuantizer] | None, bits: int) -> QuantizerFactory | None:
    """Bind a site's quantizer class to its bits; None where there is none, or at 32 bits."""
    if quantizer is None or bits == FULL_PRECISION:
        return None
    return partial(quantizer, bits=bits)


@dataclass(frozen=True)
class QuantizationRecipe:
    """One quantizer factory a site; None leaves the site in full precision.

    weight: linear layers. embedding: token embeddings. activation: inputs of quantized linear
    layers. attention: query, key, value and probabilities, one fresh quantizer each.
    feed_forward: input of each block's second feed-forward matrix, where it differs from
    `activation`; probabilities: where they differ from `attention` (TBT, Liu et al. 2023, takes
    asymmetric quantizers for these two, whose values are hardly ever negative).
    head: `tied` multiplies by the embedding's quantized matrix, `fp` by its full-precision values
    (as DQ-BART does), `int8` by its rows at 8 bits. exclude: fnmatch patterns of module names
    left in full precision; `prepare` raises for one that matches nothing.
    """

    weight: QuantizerFactory | None
    embedding: QuantizerFactory | None
    activation: QuantizerFactory | None
    attention: QuantizerFactory | None
    head: Head = "tied"
    exclude: tuple[str, ...] = ()
    feed_forward: QuantizerFactory | Literal["activation"] | None = "activation"
    probabilities: QuantizerFactory | Literal["attention"] | None = "attention"

    @property
    def feed_forward_input(self) -> QuantizerFactory | None:
        """The factory for inputs of the second feed-forward matrices."""
        return self.activation if self.feed_forward == "activation" else self.feed_forward

    @property
    def operands(self) -> dict[str, QuantizerFactory | None]:
        """The factory of each operand of attention."""
        others = self.attention
        own = others if self.probabilities == "attention" else self.probabilities
        return {"query": others, "key": others, "value": others, "probabilities": own}

    @property
    def bits(self) -> Bits:
        """The bits each site really has; 32 where nothing is rounded."""
        return Bits(_bits(self.weight), _bits(self.embedding), _bits(self.activation))

    def with_weight_bits(self, bits: int) -> "QuantizationRecipe":
        """The recipe with weights and embeddings at `bits`, or at their own where those are more.

        The factories must take `bits` anew, as those of `at_bits` do.
        """
        return replace(
            self, weight=_at_least(self.weight, bits), embedding=_at_least(self.embedding, bits)
        )

    def __post_init__(self) -> None:
        if self.head not in get_args(Head):
            raise ValueError(f"quant.head={self.head!r} is unknown; write tied, fp or int8.")
        for site in ("activation", "feed_forward", "attention", "probabilities"):
            factory: QuantizerFactory | str | None = getattr(self, site)
            if callable(factory) and (quantizer := factory()).weights_only:
                raise ValueError(
                    f"quant.{site}.quantizer: {type(quantizer).__name__} learns a scale for each "
                    f"row of a weight here; write quant.{site}.quantizer.granularity=per_tensor "
                    "or choose another quantizer."
                )


def _at_least(factory: Callable[..., FakeQuantizer] | None, bits: int) -> QuantizerFactory | None:
    return None if factory is None else partial(factory, bits=max(bits, factory().bits))


def _bits(factory: QuantizerFactory | None) -> int:
    quantizer = factory() if factory else None
    return quantizer.bits if quantizer is not None and quantizer.enabled else FULL_PRECISION
