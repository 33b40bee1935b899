"""Loggers: CSV that keeps earlier logs, and Weights & Biases that is offline by default."""

import contextlib
import netrc
import os
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

_ID_FILE = "wandb_run_id.txt"


def csv_logger(save_dir: str) -> CSVLogger:
    """Writes `save_dir`/<n>/metrics.csv with the next free n: a resumed run overwrites nothing."""
    taken = [int(f.name) for f in Path(save_dir).glob("*") if f.name.isdigit()]
    return CSVLogger(save_dir, name="", version=str(max(taken, default=-1) + 1))


def wandb_logger(
    project: str,
    save_dir: str,
    name: str,
    group: str | None,
    cell: str | None = None,
    resumed: bool = False,
) -> WandbLogger:
    """A W&B run named after its cell; the runs of one sweep share a group.

    cell: its id in a sweep, which is the W&B run's; None: W&B draws one, and a `resumed` run goes
    on with that of its folder. A W&B agent names its runs itself. A run that goes on logs the steps
    since its last checkpoint once more: two rows of the same step, not an error (W&B counts rows by
    itself, and draws them over trainer/global_step). Offline each start has a folder of its own,
    which `wandb sync` puts together by the id, in order of time.

    The run opens here, not at the first logged value: whatever fails later is seen in W&B too.
    """
    import wandb  # slow to import, and not every run logs there

    mode: Any = os.environ.get("WANDB_MODE") or ("online" if has_wandb_key() else "offline")
    by_agent = "WANDB_RUN_ID" in os.environ or "WANDB_SWEEP_ID" in os.environ
    stored = Path(save_dir) / _ID_FILE
    own = cell or (stored.read_text().strip() if resumed and stored.is_file() else None)
    run = wandb.init(
        project=project,
        dir=save_dir,
        id=None if by_agent else own,
        resume="allow",
        name=name,
        group=group,
        tags=name.split(),
        mode=mode,
        settings=wandb.Settings(silent=True),
    )
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    stored.write_text(f"{run.id}\n")
    return WandbLogger(project=project, save_dir=save_dir, name=name, experiment=run)


def log_results(
    loggers: Iterable[Logger],
    metrics: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    samples: int,
) -> None:
    """Give every logger the final numbers, and W&B a table of the first `samples` predictions.

    `packed/<metric>` and `packed/identical` where the packed file was run.
    """
    numbers = {
        f"{group}/{name}": value
        for group in ("teacher", "student", "drop", "bytes", "generation_seconds")
        for name, value in metrics[group].items()
    }
    packed = metrics.get("packed") or {}
    scores = {**(packed.get("scores") or {}), "identical": packed.get("identical")}
    numbers |= {f"packed/{name}": value for name, value in scores.items() if value is not None}
    for name, seconds in metrics["generation_seconds"].items():
        numbers[f"items_per_second/{name}"] = metrics["timed_items"] / seconds
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
