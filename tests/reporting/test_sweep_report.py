"""Hydra's own sweeps end with the table, also when a cell failed."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf

from dq_lightning.reporting.collect import collect
from dq_lightning.sweeps import aggregate
from dq_lightning.sweeps.aggregate import SweepReport

APP = """
import hydra
from hydra.core.hydra_config import HydraConfig
from dq_lightning.artifacts.artifact import Artifact

@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg):
    if cfg.bits == 3:
        raise ValueError("bits=3: write 2, 4 or 8.")
    cell = {"name": f"{cfg.bits}-{cfg.bits}-8 1-1", "weight_bits": cfg.bits}
    artifact = Artifact(HydraConfig.get().runtime.output_dir)
    with artifact.running(cell):
        if cfg.bits == 4:
            raise RuntimeError("out of memory")
        if cfg.bits == 5:
            raise KeyboardInterrupt
        artifact.write_json("metrics.json", {"student": {"wer": 1.5}, "cell": cell})

main()
"""

CONFIG = """
bits: 2
hydra:
  callbacks:
    sweep_report: {_target_: dq_lightning.sweeps.aggregate.SweepReport}
"""


def sweep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "conf").mkdir()
    (folder / "conf" / "train.yaml").write_text(CONFIG)
    (folder / "app.py").write_text(APP)
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "app.py", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_sweep_ends_with_one_table(tmp_path: Path) -> None:
    done = sweep(tmp_path, "-m", "bits=8,2", "hydra.sweep.dir=grid", "hydra.job.chdir=true")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("parameters") == 0  # no run's table
    assert done.stdout.count("status") == 1
    *_, report, dashboard = done.stdout.splitlines()
    assert report.endswith("grid/report.md") and dashboard.endswith("grid/dashboard.html")
    assert [row["cell"] for row in collect(tmp_path / "grid")] == ["2-2-8 1-1", "8-8-8 1-1"]
    assert (tmp_path / "grid" / "report.csv").read_text().count("\n") == 3


def test_a_failed_cell_does_not_cost_the_table(tmp_path: Path) -> None:
    done = sweep(tmp_path, "-m", "bits=3,4,2", "hydra.sweep.dir=grid")
    assert done.returncode == 1
    assert done.stdout.count("ratio") == 1
    assert "report.md" in done.stdout
    states = {row["cell"]: row["status"] for row in collect(tmp_path / "grid")}
    assert states == {"2-2-8 1-1": "finished", "4-4-8 1-1": "failed", "bits=3": "failed"}
    assert "ValueError: bits=3: write 2, 4 or 8." in (tmp_path / "grid" / "report.md").read_text()


def test_an_interrupted_sweep_still_shows_what_it_has(tmp_path: Path) -> None:
    done = sweep(tmp_path, "-m", "bits=2,5,8", "hydra.sweep.dir=grid")
    assert done.returncode != 0
    assert done.stdout.count("ratio") == 1
    assert "KeyboardInterrupt" in done.stdout


def test_a_single_run_has_no_sweep_report(tmp_path: Path) -> None:
    done = sweep(tmp_path, "hydra.run.dir=single")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.rglob("report.md"))


def test_a_report_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(folder: Path, figures: bool | None = None) -> Any:
        raise OSError("No space left on device")

    monkeypatch.setattr(aggregate, "write_report", full)
    config = OmegaConf.create(
        {"hydra": {"sweep": {"dir": str(tmp_path)}, "runtime": {"output_dir": str(tmp_path)}}}
    )
    config.hydra.mode = RunMode.MULTIRUN
    callback = SweepReport()
    callback.on_multirun_start(config)
    callback.on_job_end(config, JobReturn(status=JobStatus.COMPLETED))
    callback.on_multirun_end(config)
    assert caplog.text.count("No space left on device") == 2


def test_a_rerun_that_failed_early_is_not_shown_as_finished(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "status.json").write_text('{"status": "finished", "cell": {"name": "x"}}')
    config = SimpleNamespace(
        hydra=SimpleNamespace(runtime=SimpleNamespace(output_dir=str(tmp_path / "0")))
    )
    returned = JobReturn(status=JobStatus.FAILED, overrides=["bits=3"])
    returned.return_value = ValueError("bits=3")
    aggregate._record_early_failure(config, returned)  # type: ignore[arg-type]
    (row,) = collect(tmp_path)
    assert (row["cell"], row["status"], row["error"]) == ("x", "failed", "ValueError: bits=3")
