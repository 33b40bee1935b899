"""SIGTERM ends a run as an error does: status.json and W&B say so, and nothing stays running."""

import contextlib
import signal
import threading
from collections.abc import Generator
from types import FrameType
from typing import final

from pytorch_lightning import Callback, LightningModule, Trainer


@contextlib.contextmanager
def exits_on_sigterm() -> Generator[None, None, None]:
    """In the block SIGTERM raises SystemExit(143); only the main thread can ask for it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@final
class ExitsAtOnce(Callback):
    """Leaves SIGTERM to `exits_on_sigterm` while several processes train.

    Lightning's own handler starts a collective that the other ranks know nothing of, and may wait
    in it for ever.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, _exit)  # the trainer puts the earlier handler back

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_start(trainer, pl_module)


def _exit(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)
