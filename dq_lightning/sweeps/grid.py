"""The cells of a sweep: planned from their overrides, run side by side, concluded one by one."""

import contextlib
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.choices import cell_id, plain
from dq_lightning.reporting.report import write_report
from dq_lightning.sweeps.cell import cell_name
from dq_lightning.sweeps.manifest import Cell, Manifest
from dq_lightning.sweeps.outcome import CellError, finished_metric
from dq_lightning.sweeps.pool import Job, run_jobs
from dq_lightning.sweeps.slots import Slot
from dq_lightning.sweeps.view import View, sweep_view

_REPORT_SECONDS = 15.0
_KILLED = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # by someone else


@dataclass
class Planned:
    """A cell with its composed config, its process and what Hydra is told of it."""

    cell: Cell
    config: DictConfig
    job: Job
    result: JobReturn = field(default_factory=JobReturn)

    def succeed(self, metric: float) -> None:
        self.result.status, self.result.return_value = JobStatus.COMPLETED, metric

    def fail(self, reason: str) -> None:
        self.result.status = JobStatus.FAILED
        self.result.return_value = CellError(f"{self.cell.name}: {reason}")

    @property
    def well(self) -> bool:
        return self.result.status == JobStatus.COMPLETED


@final
class Grid:
    """The cells that one call of Hydra's sweeper asks for, in its order."""

    def __init__(self, context: HydraContext, config: DictConfig, sweep_dir: Path) -> None:
        self.context, self.config, self.sweep_dir = context, config, sweep_dir
        self.order: list[str] = []
        self.cells: dict[str, Planned] = {}  # by identity: overrides may name a cell twice

    def plan(self, job_overrides: Sequence[Sequence[str]], first: int) -> None:
        """Compose every cell before any runs, and write them all down as the sweep's."""
        for number, overrides in enumerate(job_overrides, first):
            planned = self._planned(list(overrides), number)
            self.order.append(planned.cell.id)
            self.cells.setdefault(planned.cell.id, planned)
        Manifest(self.sweep_dir).add(planned.cell for planned in self.cells.values())

    def _planned(self, overrides: list[str], number: int) -> Planned:
        config = self.context.config_loader.load_sweep_config(self.config, overrides)
        with read_write(config), open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
            folder = self.sweep_dir / str(OmegaConf.select(config, "hydra.sweep.subdir"))
            config.hydra.runtime.output_dir = config.paths.output_dir = str(folder)
            config.sweep.name = self.sweep_dir.name
        cell = Cell(cell_id(config), cell_name(config), tuple(overrides), folder)
        command = [sys.executable, "-m", "dq_lightning.sweeps.job", str(folder / "job.yaml")]
        job = Job(cell.id, command, folder / "output.log")
        planned = Planned(cell, config, job, JobReturn(overrides=overrides))
        planned.fail("not started, because another cell failed")  # until it has run
        return planned

    def run(self, slots: Sequence[Slot], rerun: bool, stop_on_error: bool) -> None:
        """Run what is not finished yet; reports are renewed as cells end, and now and then."""
        for planned in self.cells.values():
            metric = None if rerun else finished_metric(planned.cell.folder)
            if metric is not None:
                planned.succeed(metric)
        waiting = {name: planned for name, planned in self.cells.items() if not planned.well}
        for planned in waiting.values():
            Artifact(planned.cell.folder).write_text("job.yaml", _resolved(planned.config))
        report = _Report(self.sweep_dir)
        with sweep_view([one.cell for one in self.cells.values()], len(slots)) as view:
            view.skip([name for name in self.cells if name not in waiting])

            def on_end(job: Job) -> bool:
                self._conclude(waiting[job.name], view)
                return waiting[job.name].well or not stop_on_error

            def on_tick(running: Sequence[Job]) -> None:
                view.show([job.name for job in running])
                report.renew()

            run_jobs([planned.job for planned in waiting.values()], slots, on_end, on_tick)

    def _conclude(self, planned: Planned, view: View) -> None:
        metric = finished_metric(planned.cell.folder)
        # a crash while a process leaves costs nothing that it has finished
        if metric is not None and (planned.job.exit_code == 0 or _began(planned.cell, planned.job)):
            planned.succeed(metric)
        else:
            planned.fail(record_death(planned.cell, planned.job))
        view.end(planned.cell.id, planned.well)
        self.context.callbacks.on_job_end(config=planned.config, job_return=planned.result)

    def returns(self) -> list[JobReturn]:
        """What became of each of the overrides."""
        return [self.cells[name].result for name in self.order]


def _resolved(config: DictConfig) -> str:
    """The config of a run as YAML, with no interpolation left and without Hydra's own node."""
    keys = [str(key) for key in config if key != "hydra"]
    values: dict[str, Any] = {key: config[key] for key in keys}
    return OmegaConf.to_yaml(
        {key: plain(v) if OmegaConf.is_config(v) else v for key, v in values.items()}
    )


def record_death(cell: Cell, job: Job) -> str:
    """Why a cell failed, written down for a process that could not do so itself.

    A cell that was killed, or whose process ended before it went on with the cell, is interrupted:
    the next start goes on from its last checkpoint.
    """
    artifact = Artifact(cell.folder)
    status = artifact.read_object("status.json")
    before = status.get("status")
    began = _began(cell, job)
    if began and before in ("failed", "interrupted"):
        return status["error"]
    code = job.exit_code or 0
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    hint = "; so the system ends what takes too much memory" if code == -signal.SIGKILL else ""
    error = f"The process ended with {how}{hint}. What it printed is in {job.log}"
    goes_on = -code in _KILLED or (not began and before in ("running", "interrupted"))
    lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines()
    record = {"status": "interrupted" if goes_on else "failed", "error": error}
    record["traceback"] = "\n".join(lines[-40:])
    artifact.write_json("status.json", {"cell": {"name": cell.name}} | status | record)
    return error


def _began(cell: Cell, job: Job) -> bool:
    """Whether the cell's status is of this process, and not of an earlier start."""
    assert job.process is not None
    return Artifact(cell.folder).read_object("status.json").get("pid") == job.process.pid


class _Report:
    """Renews the sweep's report while its cells run."""

    def __init__(self, sweep_dir: Path) -> None:
        self.sweep_dir = sweep_dir
        self.written = float("-inf")

    def renew(self) -> None:
        if time.monotonic() - self.written > _REPORT_SECONDS:
            with contextlib.suppress(Exception):  # the report at a cell's end says what is wrong
                write_report(self.sweep_dir)
            self.written = time.monotonic()
