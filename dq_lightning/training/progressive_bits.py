"""Progressive bits: weights and embeddings lose bits stage by stage."""

import itertools
from collections.abc import Sequence
from typing import final

from torch import nn

from dq_lightning.quantization.prepare import PreparableFamily
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.quantization.stages import (
    WeightQuantizers,
    fresh_quantizers,
    present_quantizers,
    use_quantizers,
)
from dq_lightning.training.quantization_schedule import QuantizationSchedule


@final
class ProgressiveBits(QuantizationSchedule):
    """Quantizes weights and embeddings at each of `bits` in turn, then at the recipe's own bits.

    bits: widths of the stages before the last, falling; a site never has fewer than its own bits,
    so one schedule serves a grid. fractions: of all steps, where the stage after each begins.
    (Progressive quantization: Zhuang et al. 2018, "Towards Effective Low-bitwidth Convolutional
    Neural Networks".) Quantizers with state, such as learned scales, are refused: a
    scale of 8 bits says nothing at 2, and the optimizer could not follow the exchange.
    """

    def __init__(
        self,
        student: nn.Module,
        recipe: QuantizationRecipe,
        family: PreparableFamily,
        bits: Sequence[int],
        fractions: Sequence[float],
    ) -> None:
        super().__init__(student, recipe, family, fractions)
        self.bits = _checked_bits(bits, fractions)
        final_stage = present_quantizers(student)
        stages = [self._quantizers_at(width) for width in self.bits]
        self.stages = [final_stage | stage for stage in stages] + [final_stage]
        for stage in reversed(self.stages):
            _check_exchangeable(stage, final_stage)

    def _quantizers_at(self, bits: int) -> WeightQuantizers:
        recipe = self.recipe.with_weight_bits(bits)
        try:
            return fresh_quantizers(self.student, recipe, self.family)
        except ValueError as error:
            raise ValueError(f"quant_schedule.bits={list(self.bits)}: {error}") from error

    def enter(self, stage: int) -> None:
        use_quantizers(self.stages[stage])

    def describe(self, stage: int) -> str:
        last = stage == len(self.bits)
        recipe = self.recipe if last else self.recipe.with_weight_bits(self.bits[stage])
        return f"quantization {recipe.bits}"


def _checked_bits(bits: Sequence[int], fractions: Sequence[float]) -> tuple[int, ...]:
    widths = list(bits) if isinstance(bits, Sequence) else []  # pyright: ignore[reportUnnecessaryIsInstance]
    whole = bool(widths) and all(width in range(1, 9) for width in widths)
    if not whole or not all(a > b for a, b in itertools.pairwise(widths)):
        raise ValueError(
            f"quant_schedule.bits={bits} are no falling widths from 8 to 1; write such as "
            "quant_schedule.bits=[8,4]."
        )
    if len(bits) != len(fractions):
        raise ValueError(
            f"quant_schedule.bits={list(bits)} and quant_schedule.fractions={list(fractions)} are "
            "of unequal length; write one fraction for each width, where the next one begins."
        )
    return tuple(bits)


def _check_exchangeable(stage: WeightQuantizers, final_stage: WeightQuantizers) -> None:
    for owner, quantizer in stage.items():
        if quantizer.state_dict():
            raise ValueError(
                f"quant_schedule: {type(quantizer).__name__} keeps a learned scale, which cannot "
                "change its bits while training; write quant=ternary, or another quant whose "
                "weights learn none, or quant_schedule=gradual."
            )
        # the preparation chose by it what to look up first and what to share
        assert quantizer.granularity is final_stage[owner].granularity
