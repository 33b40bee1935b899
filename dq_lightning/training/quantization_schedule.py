"""The contract of schedules that change a student's fake quantizers while it trains."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from torch import nn

from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.prepare import PreparableFamily
from dq_lightning.quantization.recipe import QuantizationRecipe


class QuantizationSchedule(pl.Callback, ABC):
    """Takes a prepared student through stages; the last is the recipe's own quantization.

    fractions: of all steps, rising; where each stage after the first begins. The stage is a
    function of trainer.global_step alone, so a resumed run is in the stage that the unbroken one is
    in. A validation sees the stage that the last step was trained in, and what follows training
    sees the last stage. Raises ValueError where nothing is quantized.
    """

    def __init__(
        self,
        student: nn.Module,
        recipe: QuantizationRecipe,
        family: PreparableFamily,
        fractions: Sequence[float],
    ) -> None:
        if not _are_rising(fractions):
            raise ValueError(
                f"quant_schedule: stages cannot begin at these fractions of steps: {fractions}; "
                "write rising numbers between 0 and 1, such as 0.25."
            )
        self.check_student(student)
        self.student, self.recipe, self.family = student, recipe, family
        self.fractions = tuple(fractions)
        self._stage = len(fractions)  # as prepared

    def check_student(self, student: nn.Module) -> None:
        """Raise ValueError where there is nothing to schedule."""
        if not any(isinstance(m, FakeQuantizer) and m.enabled for m in student.modules()):
            raise ValueError(
                "quant_schedule: nothing of the student is quantized; write quant_schedule=none, "
                "or bits below 32 such as quant.bits=2-2-8."
            )

    @property
    def starts_scales_late(self) -> bool:
        """Whether learned scales get their first value from a batch after training began."""
        return False

    @property
    def rests_parameters(self) -> bool:
        """Whether some stage trains without parameters that another trains."""
        return False

    @abstractmethod
    def enter(self, stage: int) -> None:
        """Give the student the quantizers of `stage`: 0 is the first, len(fractions) the last."""

    @abstractmethod
    def describe(self, stage: int) -> str:
        """The stage for a person, in a few words."""

    def starts(self, steps: int) -> list[int]:
        """The first step of each stage after the first, in a run of so many optimizer steps."""
        return [min(round(fraction * steps), steps - 1) for fraction in self.fractions]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._follow(trainer.global_step, trainer.max_steps) and trainer.is_global_zero:
            print(f"step {trainer.global_step}: {self.describe(self._stage)}", flush=True)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._follow(max(trainer.global_step - 1, 0), trainer.max_steps)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._follow(trainer.max_steps, trainer.max_steps)

    def _follow(self, step: int, steps: int) -> bool:
        """Enter the stage that `step` is trained in; whether that is a change."""
        stage = bisect_right(self.starts(steps), step)
        changed = stage != self._stage
        if changed:
            self.enter(stage)
            self._stage = stage
        return changed


def _are_rising(fractions: object) -> bool:
    """Whether these are numbers, at least one, each above the last, between 0 and 1."""
    if not isinstance(fractions, Sequence) or not fractions:
        return False
    if not all(isinstance(fraction, int | float) for fraction in fractions):
        return False
    return all(a < b for a, b in zip([0.0, *fractions], [*fractions, 1.0], strict=True))
