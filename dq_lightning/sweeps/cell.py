"""A cell of a sweep: one folder named after its config, which goes on where it was interrupted."""

import contextlib
import shutil
from collections.abc import Generator
from pathlib import Path

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.choices import cell_columns, cell_id
from dq_lightning.sweeps.outcome import finished_metric, state
from dq_lightning.training.ranks import is_first_rank


def cell_name(cfg: DictConfig) -> str:
    """Such as 2-2-8 6-3; for bits and layers that cannot be read, what was written."""
    try:
        return cell_columns(cfg)["name"]
    except Exception:  # whatever it is, the run raises it again and its status holds it
        written = (OmegaConf.select(cfg, key) for key in ("quant.bits", "student.layers"))
        return " ".join(map(str, written))


def cell_folder(cfg: DictConfig) -> Path:
    """Where this cell runs, whichever sweep asks for it."""
    name = "".join(c if c.isalnum() or c in "-." else "_" for c in cell_name(cfg))
    return Path(cfg.paths.runs).resolve() / "cells" / f"{name}_{cell_id(cfg)}"


def run_job(cfg: DictConfig) -> float | None:
    """What Hydra starts: a single run, or a cell of a sweep under another launcher than ours."""
    from dq_lightning.run import run

    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return run(cfg)
    with open_dict(cfg):
        cfg.sweep.name = Path(hydra.sweep.dir).resolve().name
    return run_cell(cfg)


def run_cell(cfg: DictConfig) -> float | None:
    """Run the cell that `cfg` describes, or what is left of it; its primary test metric.

    A finished cell returns at once (but for sweep.rerun), an interrupted one goes on from its last
    checkpoint, a failed one starts anew. Another process that runs the same cell is waited for.
    Where each rank is started by others (srun, torchrun), rank 0 alone prepares the folder.
    """
    from dq_lightning.run import run

    artifact = Artifact(cfg.paths.output_dir)
    first = is_first_rank()
    with _alone(artifact.run_dir) if first else contextlib.nullcontext():
        metric = finished_metric(artifact.run_dir)
        if metric is not None and not cfg.sweep.rerun:
            return metric
        # running: under the lock, of a process that is gone; for other ranks, of rank 0's start
        goes_on = state(artifact.run_dir) in ("running", "interrupted")
        if first and not goes_on:
            _clear(artifact)
        last = artifact.checkpoints / "last.ckpt"
        with open_dict(cfg):
            cfg.ckpt = str(last) if goes_on and last.is_file() else None
        return run(cfg)


def _clear(artifact: Artifact) -> None:
    """Remove what says how far an earlier start got."""
    shutil.rmtree(artifact.checkpoints, ignore_errors=True)
    (artifact.run_dir / "progress.json").unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Generator[None, None, None]:
    """Holds the folder's lock, which the system takes back from a killed process."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Waiting for another process that runs the same cell in {folder}", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
