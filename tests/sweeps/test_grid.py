"""What is written down of a cell whose process could not do so itself."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.sweeps.aggregate import SweepReport, _outcome
from dq_lightning.sweeps.grid import Grid, record_death
from dq_lightning.sweeps.manifest import Cell
from dq_lightning.sweeps.outcome import CellError
from dq_lightning.sweeps.pool import Job, run_jobs
from dq_lightning.sweeps.slots import Slot

BEGIN = "import json, os, pathlib; status = {'status': 'running', 'pid': os.getpid()}; "
WRITE = "pathlib.Path('status.json').write_text(json.dumps(status)); "


def died(folder: Path, code: str, before: Mapping[str, object] | None = None) -> tuple[str, str]:
    """(status, error) after a process that ran `code` in the folder; before: an earlier status."""
    cell = Cell("id", "2-2-8 6-3", (), folder)
    if before is not None:
        Artifact(folder).write_json("status.json", before)
    code = f"import os; os.chdir({str(folder)!r}); {code}"
    job = Job(cell.id, [sys.executable, "-c", code], folder / "output.log")
    run_jobs([job], [Slot((), 1)], lambda _: True, lambda _: None)
    error = record_death(cell, job)
    status = json.loads((folder / "status.json").read_text())
    assert status["error"] == error
    return status["status"], error


def test_what_the_process_said_itself_stands(tmp_path: Path) -> None:
    code = f"{BEGIN} status |= {{'status': 'failed', 'error': 'ValueError: no'}}; {WRITE} exit(1)"
    assert died(tmp_path, code) == ("failed", "ValueError: no")


@pytest.mark.parametrize("earlier", ["failed", "finished"])
def test_an_earlier_starts_error_is_not_taken_for_this_ones(tmp_path: Path, earlier: str) -> None:
    before = {"status": earlier, "pid": 1, "error": "ValueError: of yesterday"}
    status, error = died(tmp_path, "import nowhere_to_be_found", before)
    assert status == "failed"
    assert "exit code 1" in error
    assert "nowhere_to_be_found" in Artifact(tmp_path).read_json("status.json")["traceback"]


def test_a_killed_process_was_interrupted_and_goes_on_the_next_time(tmp_path: Path) -> None:
    status, error = died(tmp_path, f"{BEGIN} {WRITE} os.kill(os.getpid(), 9)")
    assert status == "interrupted"
    assert "SIGKILL; so the system ends what takes too much memory" in error


def test_a_crash_is_a_failure(tmp_path: Path) -> None:
    status, error = died(tmp_path, f"{BEGIN} {WRITE} os.kill(os.getpid(), 11)")
    assert status == "failed"
    assert "SIGSEGV" in error


@pytest.mark.parametrize("earlier", ["running", "interrupted"])
def test_a_start_that_came_to_nothing_leaves_a_cell_interrupted(
    tmp_path: Path, earlier: str
) -> None:
    """A broken installation must not cost the hours that a checkpoint holds."""
    status, error = died(tmp_path, "import nowhere_to_be_found", {"status": earlier, "pid": 1})
    assert status == "interrupted"
    assert "exit code 1" in error


class Composed:
    """Stands in for Hydra: composes the same config whatever the overrides are."""

    def __init__(self, config: Any) -> None:
        self.config_loader = self.callbacks = self
        self.config = config

    def load_sweep_config(self, master: Any, overrides: list[str]) -> Any:
        return self.config

    def on_job_end(self, **told: Any) -> None:
        pass


@pytest.mark.parametrize(("pid", "well"), [("os.getpid()", True), ("1", False)])
def test_a_crash_on_leaving_costs_nothing_that_is_finished(
    tmp_path: Path, pid: str, well: bool
) -> None:
    """Libraries crash while the interpreter ends; of a cell that runs again, pid 1 was first."""
    hydra = {"job": {}, "sweep": {"subdir": "cell"}, "runtime": {}}
    config = OmegaConf.create({"hydra": hydra, "paths": {}, "sweep": {}, "quant": {}})
    grid = Grid(Composed(config), config, tmp_path)  # type: ignore[arg-type]
    grid.plan([[]], 0)
    (planned,) = grid.cells.values()
    metrics = {"primary_metric": "wer", "student": {"wer": 2.5}, "drop": {}}
    code = f"{BEGIN} status |= {{'status': 'finished', 'pid': {pid}}}; {WRITE} "
    code += f"pathlib.Path('metrics.json').write_text({json.dumps(metrics)!r}); os.abort()"
    planned.job.command[1:] = ["-c", f"import os; os.chdir({str(tmp_path / 'cell')!r}); {code}"]
    grid.run([Slot((), 1)], rerun=True, stop_on_error=False)
    (ended,) = grid.returns()
    assert ended.status == (JobStatus.COMPLETED if well else JobStatus.FAILED)


def test_the_report_leaves_a_cells_own_words_alone(tmp_path: Path) -> None:
    """It once made every cell that SIGTERM interrupted a failed one, whose checkpoint then goes."""
    Artifact(tmp_path).write_json("status.json", {"status": "interrupted", "error": "exit 143"})
    where = {"sweep": {"dir": str(tmp_path)}, "runtime": {"output_dir": str(tmp_path)}}
    config = OmegaConf.create({"hydra": where})
    config.hydra.mode = RunMode.MULTIRUN
    ended = JobReturn(status=JobStatus.FAILED, overrides=[])
    ended.return_value = CellError("2-2-8 6-3: exit 143")
    SweepReport().on_job_end(config, ended)
    assert Artifact(tmp_path).read_json("status.json")["status"] == "interrupted"


@pytest.mark.parametrize(
    ("states", "outcome"),
    [
        ([], "failed"),  # such as jobs=two, or a key that cannot be composed
        (["finished"], "finished"),
        (["finished", "interrupted"], "interrupted"),
        (["interrupted", "failed", "queued"], "failed"),
    ],
)
def test_a_sweep_is_finished_once_all_its_cells_are(states: list[str], outcome: str) -> None:
    assert _outcome([{"status": state} for state in states]) == outcome
