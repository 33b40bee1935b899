"""progress.json: how far a run is, for those who watch it from outside."""

import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from dq_lightning.artifacts.artifact import Artifact

_SECONDS = 1.0


class ProgressFile(pl.Callback):
    """Writes step, steps and the last validation into the run directory, once a second at most."""

    def __init__(self, run_dir: Path) -> None:
        self.artifact = Artifact(run_dir)
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
        self._write(trainer, "train")

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
        self.artifact.write_json("progress.json", content)
