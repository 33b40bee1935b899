"""Gradual quantization: weights move from their own values to the rounded ones."""

from typing import Any, final

import pytorch_lightning as pl
from torch import nn

from dq_lightning.quantization.modules import ParameterQuantizer
from dq_lightning.quantization.prepare import PreparableFamily
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.training.quantization_schedule import QuantizationSchedule


@final
class GradualQuantization(QuantizationSchedule):
    """Trains with w + s (q(w) - w) for weights and embeddings, s from 0 to 1 in equal steps.

    s reaches 1 after `fraction` of all steps. Evaluation takes q(w) from the start. (The warm-up
    of Mekkouri et al. 2024, "Fine-tuning LLMs to 1.58bit: extreme quantization made easy".) Of a
    student whose weights are not quantized nothing changes.
    """

    def __init__(
        self,
        student: nn.Module,
        recipe: QuantizationRecipe,
        family: PreparableFamily,
        fraction: float,
    ) -> None:
        super().__init__(student, recipe, family, [fraction])
        self.quantizers = [m for m in student.modules() if isinstance(m, ParameterQuantizer)]

    def check_student(self, student: nn.Module) -> None:
        """Accept any: this schedule is a default, and full precision needs none."""

    def starts(self, steps: int) -> list[int]:
        """As any schedule's; 0 without quantized weights: each validation may then be the best."""
        return super().starts(steps) if self.quantizers else [0]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        (full,) = self.starts(trainer.max_steps)
        self._use(min(1.0, trainer.global_step / max(full, 1)))

    def enter(self, stage: int) -> None:
        self._use(float(stage))

    def _use(self, strength: float) -> None:
        for quantizer in self.quantizers:
            quantizer.strength = strength

    def describe(self, stage: int) -> str:
        return ("gradual quantization begins", "weights are fully quantized")[stage]
