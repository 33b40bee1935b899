"""What a person sees while training: a bar on a terminal, plain lines in a log file."""

import logging
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any

import datasets
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar
from transformers.utils import logging as transformers_logging


def progress_callback() -> ProgressBar:
    """A live bar when stderr is a terminal, else a line every few seconds."""
    return RichProgressBar(leave=False) if sys.stderr.isatty() else ProgressLines()


def quiet_libraries() -> None:
    """Silence what tells a user nothing: trainer hints, bars of savers, bars in log files."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("absl").setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", r".*exists and is not empty.*")
    warnings.filterwarnings("ignore", r".*your dataloader is not resumable.*")  # ours goes on
    warnings.filterwarnings("ignore", r".*does not have many workers.*")
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\).*")
    warnings.filterwarnings("ignore", r".*is smaller than the logging interval.*")
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()


class ProgressLines(ProgressBar):
    """One line at most every `seconds`: step, loss terms by name, speed, time left."""

    def __init__(self, seconds: float = 15.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._started = self._printed = 0.0
        self._first_step = 0

    def disable(self) -> None:
        self.seconds = float("inf")  # ranks other than 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = self._printed = time.monotonic()
        self._first_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        now = time.monotonic()
        if now - self._printed < self.seconds:
            return
        self._printed = now
        step, total = trainer.global_step, int(trainer.estimated_stepping_batches)
        rate = (step - self._first_step) / (now - self._started)
        terms = "  ".join(
            f"{name.removeprefix('train/')} {float(value):.3f}"
            for name, value in trainer.callback_metrics.items()
            if name.startswith("train/")
        )
        left = int((total - step) / rate) if rate else 0
        eta = f"{left // 60}:{left % 60:02d}"
        print(f"step {step}/{total}  {terms}  {rate:.1f} steps/s  left {eta}", flush=True)


def describe(scores: Mapping[str, float], teacher: Mapping[str, float] | None = None) -> str:
    """Scores by name, each beside the teacher's where there is one.

    >>> describe({"wer": 31.25}, {"wer": 28.5})
    'wer 31.25 (teacher 28.50)'
    """
    beside = teacher or {}
    return "  ".join(
        f"{name} {value:.2f}" + (f" (teacher {beside[name]:.2f})" if name in beside else "")
        for name, value in scores.items()
    )


class ValidationLines(pl.Callback):
    """After each validation: the student's scores beside the teacher's.

    teacher: the teacher's scores on the same rows (empty without a teacher).
    """

    def __init__(self, teacher: Mapping[str, float]) -> None:
        self.teacher = teacher

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        scores = {
            name.removeprefix("validation/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("validation/")
        }
        print(
            f"step {trainer.global_step}: validation  {describe(scores, self.teacher)}", flush=True
        )
