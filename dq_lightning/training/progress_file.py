"""progress.json: how far a run is, for those who watch it from outside."""

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

_SECONDS = 1.0


class ProgressFile(pl.Callback):
    """Gives stage, step, steps and the last validation to `write`, once a second at most."""

    def __init__(self, write: Callable[[dict[str, Any]], object]) -> None:
        self.write = write
        self.written = float("-inf")
        self.validation: dict[str, float] = {}

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if time.monotonic() - self.written > _SECONDS:
            self._write(trainer, "train")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, "validate")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validation = {
            name.removeprefix("validation/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("validation/")
        }
        # a last step that no validation saw is validated when training is over
        self._write(trainer, "train" if trainer.state.fn == TrainerFn.FITTING else "test")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, "test")

    def _write(self, trainer: pl.Trainer, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        self.written = time.monotonic()
        content = {
            "stage": stage,
            "step": trainer.global_step,
            "steps": trainer.max_steps,
            "validation": self.validation,
            "updated": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        self.write(content)
