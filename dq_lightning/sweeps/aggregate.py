"""Keeps a sweep's report up to date: after every job, and once more with its table at the end."""

import atexit
import contextlib
import logging
import os
from pathlib import Path
from typing import Any, final

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dq_lightning.artifacts.artifact import Artifact, failure
from dq_lightning.reporting.report import write_report
from dq_lightning.reporting.terminal import print_sweep_table

log = logging.getLogger(__name__)


@final
class SweepReport(Callback):
    """Hydra callback: ``report.md`` and ``report.csv`` in ``hydra.sweep.dir``, then the table.

    Hydra 1.3's BasicSweeper raises a failed job's error once its batch is through, and
    ``Hydra.multirun`` then never calls ``on_multirun_end``. The last job cannot be told from inside
    a job either (a sweeper may plan more), so the table waits for whichever comes first: the hook
    or the end of the process. A report that cannot be written is a warning, never a failed sweep.
    """

    def __init__(self) -> None:
        self.sweep_dir: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Arms the final table in the process that owns the sweep (jobs may run in others)."""
        self.sweep_dir = _sweep_dir(config)
        owner = os.getpid()
        self._at_exit = lambda: self._finish() if os.getpid() == owner else None
        atexit.register(self._at_exit)

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
            rows = write_report(self.sweep_dir)
            if rows:  # none where the sweep ended before its first job, at a misspelt key say
                print_sweep_table(rows)
                print(f"Report: {self.sweep_dir / 'report.md'}", flush=True)
        except Exception as error:
            log.warning("The sweep's report could not be written: %s", error)


def _sweep_dir(config: DictConfig) -> Path:
    return Path(str(OmegaConf.select(config, "hydra.sweep.dir"))).resolve()


def _record_early_failure(config: DictConfig, job_return: JobReturn) -> None:
    """A job that failed before it opened its artifact still gets its line in the report."""
    if job_return.status != JobStatus.FAILED:
        return
    artifact = Artifact(str(config.hydra.runtime.output_dir))
    status: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        status = artifact.read_json("status.json")
    if status.get("status") == "failed":
        return
    # the public property raises the error instead of returning it
    error = job_return._return_value  # pyright: ignore[reportPrivateUsage]
    name = " ".join(job_return.overrides or []) or artifact.run_dir.name
    artifact.write_json("status.json", {"cell": {"name": name}} | status | failure(error))
