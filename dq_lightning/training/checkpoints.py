"""Finding and loading a run's checkpoints."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import FSDPStrategy
from pytorch_lightning.trainer.states import TrainerFn

_STEPS_TO_ASK = 16


class BestAndLast(ModelCheckpoint):
    """Keeps the checkpoint of the best validation, and the last one.

    monitor: the logged score that decides. minutes: the last checkpoint is renewed at least so
    often between validations, so that an interrupted run loses no more. after: validations up to
    this step choose no best, because quantization is not yet what will be tested.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        higher_is_better: bool,
        minutes: float = 10.0,
        after: int = 0,
    ) -> None:
        self.folder = folder
        self.higher_is_better = higher_is_better
        self.minutes = minutes
        self.after = after
        self.validated_step = -1
        self._saved = time.monotonic()
        super().__init__(
            folder,
            filename="best-{step}",
            monitor=monitor,
            mode="max" if higher_is_better else "min",
            enable_version_counter=False,  # a fresh run in a used folder replaces what lies there
        )

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        due = time.monotonic() - self._saved > 60.0 * self.minutes
        if trainer.world_size > 1 and whole_step:
            # all ranks save together, and their clocks differ; asking costs them a wait
            asks = trainer.global_step % _STEPS_TO_ASK == 0
            due = asks and trainer.strategy.reduce_boolean_decision(due, all=False)
        if whole_step and due:
            self._save_last(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step > self.after:
            super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking:
            self.validated_step = trainer.global_step
            self._save_last(trainer)  # save_last=True would renew it beside a new best only

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self._save_last(trainer)

    def _save_last(self, trainer: pl.Trainer) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            trainer.save_checkpoint(self.folder / "last.ckpt", weights_only=False)
            self._saved = time.monotonic()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # The trainer forgets the best score so far when a run is resumed in another folder.
        if Path(state_dict["best_model_path"]).is_file():
            super().load_state_dict({**state_dict, "dirpath": self.dirpath})
        # else: none so far, or a process killed after a new best, before the next last.ckpt


def load_best(
    trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule
) -> Path | None:
    """Give `module` the weights of its best validation; their file, None for the present ones.

    Weights of a last step that no validation saw are validated first.
    """
    callback = trainer.checkpoint_callback
    assert isinstance(callback, BestAndLast) and callback.monitor
    best = callback.best_model_score
    if callback.validated_step != trainer.global_step:
        (scores,) = trainer.validate(module, datamodule=data, verbose=False)
        score = scores[callback.monitor]
        if best is None or (score > best if callback.higher_is_better else score < best):
            return None
    # written by this run; Lightning's loop and callback states are no plain tensors
    path = Path(callback.best_model_path)
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    module.load_state_dict(checkpoint["state_dict"])
    return path


def is_sharded(trainer: pl.Trainer) -> bool:
    """Whether the trained weights are spread over the ranks, and whole in checkpoints alone."""
    return isinstance(trainer.strategy, FSDPStrategy)


def whole_student(student: torch.nn.Module, trainer: pl.Trainer) -> Any:
    """`student`, built anew, with the weights of the best validation, or of the last step.

    Differs from `load_best`: weights of a last step that no validation saw are not validated.
    """
    callback = trainer.checkpoint_callback
    assert isinstance(callback, BestAndLast)
    path = callback.best_model_path or callback.folder / "last.ckpt"
    weights = torch.load(path, map_location="cpu", weights_only=False)["state_dict"]
    own = {n.removeprefix("student."): w for n, w in weights.items() if n.startswith("student.")}
    student.load_state_dict(own)
    return student


def round_weights(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Round to `dtype` and back, in place: what is tested is then what is saved."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.to(dtype))


def checkpoint_to_resume(
    ckpt: str | None, own: Path, runs: Path, same_config: Callable[[Path], bool]
) -> Path | None:
    """The file that `ckpt` names: a path, or "last" for the newest unfinished run of this config.

    own: checkpoint folder of this run directory, looked at first. runs: where earlier run
    directories lie; `same_config(run directory)` says whether one had this config.
    """
    if ckpt is None:
        return None
    if ckpt != "last":
        if not Path(ckpt).is_file():
            raise ValueError(f"ckpt={ckpt} is no file; write ckpt=last or the path of a .ckpt.")
        return Path(ckpt)
    if (own / "last.ckpt").is_file():
        if not same_config(own.parent):
            raise ValueError(
                f"ckpt=last: {own.parent} holds a run of another config; give its config again, or "
                "choose another folder with hydra.run.dir=<folder>."
            )
        return own / "last.ckpt"
    found = sorted(runs.glob("**/checkpoints/last.ckpt"), key=lambda f: f.stat().st_mtime)
    fitting = [f for f in found if same_config(f.parent.parent) and not _finished(f.parent.parent)]
    if not fitting:
        raise ValueError(
            f"ckpt=last found no unfinished run of this config below {runs}; drop ckpt to start "
            "anew, or name the run with hydra.run.dir=<its folder>."
        )
    return fitting[-1]


def _finished(run_dir: Path) -> bool:
    try:
        return json.loads((run_dir / "status.json").read_text())["status"] == "finished"
    except (OSError, ValueError, KeyError):
        return False
