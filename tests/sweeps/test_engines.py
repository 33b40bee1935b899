"""Launchers and sweepers of others: submitit's jobs are cells too, Optuna's trials as well."""

import importlib.util
import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Swept = Any  # of conftest.py: exit code, output, cells and report of a sweep that ended


def needs(plugin: str) -> pytest.MarkDecorator:
    found = importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec(plugin)
    return pytest.mark.skipif(not found, reason=f"{plugin} is not installed")


@needs("hydra_plugins.hydra_submitit_launcher")
def test_submitit_runs_cells_and_skips_them_the_next_time(
    sweep: Callable[..., Swept], task: list[str], tmp_path: Path
) -> None:
    grid = [*task, "hydra/launcher=submitit_local", "quant.bits=2,8", "student.layers=1"]
    done = sweep(tmp_path, *grid)
    assert done.code == 0, done.err
    assert [(row["cell"], row["status"]) for row in done.rows] == [
        ("2-2-8 1-1", "finished"),
        ("8-8-8 1-1", "finished"),
    ]
    assert [cell.name.rpartition("_")[0] for cell in done.cells] == ["2-2-8_1-1", "8-8-8_1-1"]
    before = [(cell / "status.json").read_text() for cell in done.cells]
    again = sweep(tmp_path, *grid)
    assert again.code == 0, again.err
    assert [(cell / "status.json").read_text() for cell in again.cells] == before


@needs("hydra_plugins.hydra_submitit_launcher")
def test_a_requeued_job_goes_on_from_its_last_checkpoint(
    start_sweep: Callable[..., Any], task: list[str], tmp_path: Path
) -> None:
    """SIGUSR2 is what Slurm sends before a time limit; submitit then queues the job again."""
    grid = [*task, "hydra/launcher=submitit_local", "quant.bits=8", "student.layers=1"]
    started = start_sweep(tmp_path, *grid, "steps=300", "validations=6")
    deadline = time.monotonic() + 240
    while not any(tmp_path.glob("runs/cells/*/checkpoints/last.ckpt")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (status,) = tmp_path.glob("runs/cells/*/status.json")
    os.kill(json.loads(status.read_text())["pid"], signal.SIGUSR2)
    _, err = started.communicate()
    assert started.returncode == 0, err
    assert json.loads(status.read_text())["status"] == "finished"
    (log,) = tmp_path.glob("sweep/.submitit/*/*_log.out")
    assert "Resuming from" in log.read_text()


@needs("hydra_plugins.hydra_optuna_sweeper")
def test_optuna_has_a_study_on_disk_that_goes_on(
    sweep: Callable[..., Swept], task: list[str], tmp_path: Path
) -> None:
    search = [*task, "hydra/sweeper=optuna", "quant.bits=8", "student.layers=1"]
    search += ["optimizer.lr=interval(1e-4,1e-2)", "hydra.sweeper.n_trials=1"]
    for trials in (1, 2):
        done = sweep(tmp_path, *search)
        assert done.code == 0, done.err
        with sqlite3.connect(tmp_path / "sweep/study.db") as study:
            states = study.execute("select state from trials").fetchall()
        assert states == [("COMPLETE",)] * trials
    assert len(done.cells) == 2


@needs("hydra_plugins.hydra_optuna_sweeper")
def test_a_search_for_the_worst_is_refused(
    sweep: Callable[..., Swept], task: list[str], tmp_path: Path
) -> None:
    search = ["hydra/sweeper=optuna", "hydra.sweeper.direction=maximize"]
    done = sweep(tmp_path, *task, *search, "optimizer.lr=interval(1e-4,1e-2)")
    assert done.code == 1
    assert "write hydra.sweeper.direction=minimize." in done.err
    assert not done.cells
