"""Delayed fake quantization: the student first trains in full precision."""

from typing import final

from torch import nn

from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.learned_scale import LearnedScaleQuantizer
from dq_lightning.quantization.modules import ParameterQuantizer
from dq_lightning.quantization.prepare import PreparableFamily
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.training.quantization_schedule import QuantizationSchedule


@final
class DelayedQuantization(QuantizationSchedule):
    """Every fake quantizer is off for a `fraction` of all steps, then on.

    (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", section 3.1, delays that of activations.) Learned scales
    of activations take their first guess at the first step that is quantized, those of weights
    when the student is prepared, as ever.
    """

    def __init__(
        self,
        student: nn.Module,
        recipe: QuantizationRecipe,
        family: PreparableFamily,
        fraction: float,
    ) -> None:
        super().__init__(student, recipe, family, [fraction])
        modules = [module for module in student.modules() if isinstance(module, FakeQuantizer)]
        self.quantizers = [module for module in modules if module.enabled]  # identity never is

    @property
    def starts_scales_late(self) -> bool:
        learned = [q for q in self.quantizers if isinstance(q, LearnedScaleQuantizer)]
        return any(not bool(quantizer.initialized) for quantizer in learned)

    @property
    def rests_parameters(self) -> bool:
        return any(True for quantizer in self.quantizers for _ in quantizer.parameters())

    def enter(self, stage: int) -> None:
        for quantizer in self.quantizers:
            quantizer.enabled = stage == 1
        for module in self.student.modules():
            if isinstance(module, ParameterQuantizer):
                module.forget()

    def describe(self, stage: int) -> str:
        return f"fake quantization {('off', 'on')[stage]}"
