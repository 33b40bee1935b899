"""Randomness as a pure function of seed and step, so that a resumed run equals an unbroken one."""

from typing import Any

import pytorch_lightning as pl
import torch


class StepSeed(pl.Callback):
    """Seeds torch before every training step from (seed, optimizer step, batch, rank).

    Whatever validation or loading drew before leaves no trace: dropout at step N is the same in an
    unbroken run, a resumed one and one that validates at other times.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        position = trainer.global_step * 8191 + batch_idx  # batch_idx: differs while accumulating
        torch.manual_seed((self.seed * 1_000_003 + position) * 4099 + trainer.global_rank)
