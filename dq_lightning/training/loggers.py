"""Loggers: CSV that keeps earlier logs, and Weights & Biases that is offline by default."""

import contextlib
import netrc
import os
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only


def csv_logger(save_dir: str) -> CSVLogger:
    """Writes `save_dir`/<n>/metrics.csv with the next free n: a resumed run overwrites nothing."""
    taken = [int(f.name) for f in Path(save_dir).glob("*") if f.name.isdigit()]
    return CSVLogger(save_dir, name="", version=str(max(taken, default=-1) + 1))


def wandb_logger(project: str, save_dir: str, name: str, group: str | None) -> WandbLogger:
    """A W&B run named after its cell; the runs of one sweep share a group.

    The run opens here, not at the first logged value: whatever fails later is seen in W&B too.
    """
    import wandb  # slow to import, and not every run logs there

    mode: Any = os.environ.get("WANDB_MODE") or ("online" if has_wandb_key() else "offline")
    run = None
    if (
        getattr(rank_zero_only, "rank", 0) == 0
    ):  # other ranks log nothing and must not open runs of their own
        run = wandb.init(
            project=project,
            dir=save_dir,
            name=name,
            group=group,
            tags=name.split(),
            mode=mode,
            settings=wandb.Settings(silent=True),
        )
    return WandbLogger(project=project, save_dir=save_dir, name=name, experiment=run)


def log_results(
    loggers: Iterable[Logger],
    metrics: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    samples: int,
) -> None:
    """Give every logger the final numbers, and W&B a table of the first `samples` predictions."""
    numbers = {
        f"{group}/{name}": value
        for group in ("teacher", "student", "drop", "bytes", "generation_seconds")
        for name, value in metrics[group].items()
    }
    columns = ["source", "references", "student", "teacher"]
    rows = [[str(row[column]) for column in columns] for row in predictions[:samples]]
    for logger in loggers:
        logger.log_metrics(numbers)
        if isinstance(logger, WandbLogger):
            logger.log_table("predictions", columns=columns, data=rows)
        logger.save()


def has_wandb_key() -> bool:
    """Whether an API key is in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


@contextlib.contextmanager
def wandb_finished() -> Generator[None, None, None]:
    """Ends an open W&B run with the right exit code, also when the block raises."""
    try:
        yield
    except BaseException as error:
        finish_wandb(error)
        raise
    finish_wandb()


def finish_wandb(error: BaseException | None = None) -> None:
    """End the open W&B run, if there is one, with the exit code of a process that `error` ends."""
    wandb = sys.modules.get("wandb")  # never imported by a run that does not use it
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=exit_code(error))


def exit_code(error: BaseException | None) -> int:
    """0 without an error, 130 for Ctrl-C (which Lightning makes a SystemExit), else its own or 1.

    >>> [exit_code(e) for e in (None, SystemExit(143), KeyboardInterrupt(), OSError())]
    [0, 143, 130, 1]
    """
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        return 130
    code = error.code if isinstance(error, SystemExit) else 1
    return code if isinstance(code, int) and code else 1
