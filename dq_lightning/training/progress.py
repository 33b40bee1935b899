"""What a person sees while training: a bar on a terminal, plain lines in a log file."""

import logging
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any

import datasets
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers.utils import logging as transformers_logging


def progress_callback() -> ProgressBar:
    """A live bar on a terminal, else a line every few seconds."""
    return ProgressLive() if sys.stdout.isatty() else ProgressLines()


def quiet_libraries() -> None:
    """Silence what tells a user nothing: trainer hints, bars of savers, bars in log files."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for name in ("absl", "lightning_fabric.utilities.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", r".*exists and is not empty.*")
    warnings.filterwarnings("ignore", r".*your dataloader is not resumable.*")  # ours goes on
    warnings.filterwarnings("ignore", r".*does not have many workers.*")
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\).*")
    warnings.filterwarnings("ignore", r".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", r".*recommended to use .*sync_dist=True.*")  # equal anyway
    if not sys.stdout.isatty():
        datasets.disable_progress_bars()


def loss_terms(metrics: Mapping[str, Any]) -> str:
    """The logged training terms by name.

    >>> loss_terms({"train/loss": 1.5, "train/task": 0.25, "validation/wer": 9.0})
    'loss 1.500  task 0.250'
    """
    return "  ".join(
        f"{name.removeprefix('train/')} {float(value):.3f}"
        for name, value in metrics.items()
        if name.startswith("train/")
    )


class ProgressLive(ProgressBar):
    """One bar over the whole run: steps, time left, loss terms by name; validations say so."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._updated = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
            transient=True,
        )

    def disable(self) -> None:
        self._enabled = False  # ranks other than 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        total = int(trainer.estimated_stepping_batches)
        self._task = self._bar.add_task(
            "training", total=total, completed=trainer.global_step, terms=""
        )
        if self._enabled:
            self._bar.start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        now = time.monotonic()
        if now - self._updated > 0.2:  # reading the terms waits for the device
            self._updated = now
            self._show(trainer)

    def _show(self, trainer: pl.Trainer) -> None:
        terms = loss_terms(trainer.callback_metrics)
        self._bar.update(self._task, completed=trainer.global_step, terms=terms)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._bar.tasks:
            self._bar.update(self._task, description="validating")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._bar.tasks:
            self._bar.update(self._task, description="training")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._show(trainer)
        self._bar.stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._bar.stop()


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
        terms = loss_terms(trainer.callback_metrics)
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
