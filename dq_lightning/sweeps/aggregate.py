"""Keeps a sweep's folder up to date: its manifest, and its report after every job."""

import atexit
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from filelock import FileLock, Timeout
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dq_lightning.artifacts.artifact import Artifact, failure
from dq_lightning.errors import past_hydra
from dq_lightning.reporting.collect import Row, collect
from dq_lightning.reporting.report import write_report
from dq_lightning.reporting.terminal import print_sweep_table
from dq_lightning.sweeps.manifest import Cell, Manifest
from dq_lightning.sweeps.outcome import CellError
from dq_lightning.sweeps.search import check_direction
from dq_lightning.sweeps.wandb_summary import log_sweep

log = logging.getLogger(__name__)


@final
class SweepReport(Callback):
    """Hydra callback: ``sweep.json`` and the report in ``hydra.sweep.dir``, then the table.

    Hydra 1.3's BasicSweeper raises a failed job's error once its batch is through, and
    ``Hydra.multirun`` then never calls ``on_multirun_end``. The last job cannot be told from inside
    a job either (a sweeper may plan more), so the table waits for whichever comes first: the hook
    or the end of the process. A report that cannot be written is a warning, never a failed sweep.
    """

    def __init__(self) -> None:
        self.sweep_dir: Path | None = None
        self.wandb_project: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For launchers that pickle it: a job elsewhere owns neither the sweep nor its lock."""
        return {"sweep_dir": None, "wandb_project": None}

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Arms the final table in the process that owns the sweep (jobs may run in others)."""
        with past_hydra(of_the_sweep=True):
            check_direction(config)
            self._lock = _locked(_sweep_dir(config))
        self.sweep_dir = _sweep_dir(config)
        self.wandb_project = OmegaConf.select(config, "logger.wandb.project")
        Manifest(self.sweep_dir).begin(shlex.join(["python", "train.py", *sys.argv[1:]]))
        owner = os.getpid()
        self._at_exit = lambda: self._finish() if os.getpid() == owner else None
        atexit.register(self._at_exit)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Only launchers that plan no cells ahead call this: it adds the cell that starts."""
        if config.hydra.mode == RunMode.MULTIRUN:
            Manifest(_sweep_dir(config)).add([_cell(config)])

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        try:
            _record_early_failure(config, job_return)
            write_report(_sweep_dir(config))
        except Exception as error:
            log.warning("The sweep's report could not be written: %s", error)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        atexit.unregister(self._at_exit)
        self._finish()

    def _finish(self) -> None:
        if self.sweep_dir is None or not self.sweep_dir.is_dir():
            return
        try:
            planned = collect(self.sweep_dir)
            Manifest(self.sweep_dir).end(_outcome(planned))
            rows = write_report(self.sweep_dir, figures=True)
            if planned:  # none where the sweep ended before its first job, at a misspelt key say
                print_sweep_table(rows)
                print(f"Report: {self.sweep_dir / 'report.md'}")
                print(f"Dashboard: {self.sweep_dir / 'dashboard.html'}", flush=True)
                if self.wandb_project:
                    log_sweep(self.wandb_project, self.sweep_dir, rows)
        except Exception as error:
            log.warning("The sweep's report could not be written: %s", error)
        self._lock.release()


def _locked(sweep_dir: Path) -> FileLock:
    """The sweep's own lock, for as long as this process lives."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(sweep_dir / ".running.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"This sweep runs already, in another process: {sweep_dir}. Wait for it, or give this "
            "one a folder of its own with hydra.sweep.dir=<folder>."
        ) from None
    return lock


def _outcome(rows: Sequence[Row]) -> str:
    """Failed also without any row: the sweep ended before its cells were planned."""
    states = {row["status"] for row in rows}
    if states == {"finished"}:
        return "finished"
    return "failed" if not states or "failed" in states else "interrupted"


def _cell(config: DictConfig) -> Cell:
    from dq_lightning.choices import cell_id  # imports torch, which costs seconds
    from dq_lightning.sweeps.cell import cell_name

    folder = Path(str(config.hydra.runtime.output_dir))
    overrides = tuple(str(word) for word in config.hydra.overrides.task)
    return Cell(cell_id(config), cell_name(config), overrides, folder)


def _sweep_dir(config: DictConfig) -> Path:
    folder = str(OmegaConf.select(config, "hydra.sweep.dir"))
    # not the present folder: a job may have one of its own
    return (Path(OmegaConf.select(config, "hydra.runtime.cwd") or ".") / folder).resolve()


def _record_early_failure(config: DictConfig, job_return: JobReturn) -> None:
    """A job that failed before it opened its artifact still gets its line in the report."""
    # the public property raises the error instead of returning it
    error = job_return._return_value  # pyright: ignore[reportPrivateUsage]
    if job_return.status != JobStatus.FAILED or isinstance(error, CellError):
        return
    artifact = Artifact(str(config.hydra.runtime.output_dir))
    status = artifact.read_object("status.json")
    if status.get("pid") == os.getpid() and status.get("status") in ("failed", "interrupted"):
        return
    name = " ".join(job_return.overrides or []) or artifact.run_dir.name
    artifact.write_json("status.json", {"cell": {"name": name}} | status | failure(error))
