"""A sweep that is killed, interrupted or broken goes on where it was, and ends the same."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GRID = ["quant.bits=2,8", "student.layers=1", "jobs=2", "validations=6", "steps=30"]
Swept = Any  # of conftest.py: exit code, output, cells and report of a sweep that ended


def statuses(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(f.read_text()) for f in folder.glob("runs/cells/*/status.json")]


def wait_for(what: Callable[[], bool], seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def unbroken(
    sweep: Callable[..., Swept], task: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Swept:
    done = sweep(tmp_path_factory.mktemp("unbroken"), *task, *GRID)
    assert done.code == 0, done.err
    return done


def students(done: Swept) -> list[bytes]:
    return [(cell / "student" / "model.safetensors").read_bytes() for cell in done.cells]


def test_a_sweep_killed_at_a_random_moment_ends_with_the_same_table(
    unbroken: Swept,
    start_sweep: Callable[..., Any],
    sweep: Callable[..., Swept],
    task: list[str],
    tmp_path: Path,
) -> None:
    started = start_sweep(tmp_path, *task, *GRID)
    wait_for(lambda: any(tmp_path.glob("runs/cells/*/checkpoints/last.ckpt")))
    moment = random.SystemRandom().uniform(0.0, 4.0)
    print(f"killed {moment:.3f} s after the first checkpoint")  # shown if the test fails
    time.sleep(moment)
    pids = [status["pid"] for status in statuses(tmp_path)]
    for pid in (started.pid, *pids):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    started.communicate()
    again = sweep(tmp_path, *task, *GRID)
    assert again.code == 0, again.err
    assert (tmp_path / "sweep/report.csv").read_bytes() == (
        unbroken.folder / "sweep/report.csv"
    ).read_bytes()
    assert students(again) == students(unbroken)
    assert [s["status"] for s in statuses(tmp_path)] == ["finished", "finished"]


def test_finished_cells_are_skipped_and_new_ones_alone_run(
    unbroken: Swept, sweep: Callable[..., Swept], task: list[str]
) -> None:
    before = {cell: (cell / "status.json").read_text() for cell in unbroken.cells}
    more = ["quant.bits=2,8,4", *GRID[1:]]
    grown = sweep(unbroken.folder, *task, *more)
    assert grown.code == 0, grown.err
    assert "2 cells finished already, 1 to run" in grown.out
    assert {cell: (cell / "status.json").read_text() for cell in before} == before
    assert [row["cell"] for row in grown.rows] == ["2-2-8 1-1", "4-4-8 1-1", "8-8-8 1-1"]


def test_ctrl_c_ends_all_within_seconds_and_says_interrupted(
    start_sweep: Callable[..., Any], task: list[str], tmp_path: Path
) -> None:
    started = start_sweep(tmp_path, *task, *GRID, "steps=3000", "validations=1")
    wait_for(lambda: len(list(tmp_path.glob("runs/cells/*/progress.json"))) == 2)
    pids = [status["pid"] for status in statuses(tmp_path)]
    started.send_signal(signal.SIGINT)
    wait_for(lambda: not any(map(alive, pids)), 15.0)
    _out, err = started.communicate()
    assert started.returncode == 130
    assert "interrupted" in err
    assert [status["status"] for status in statuses(tmp_path)] == ["interrupted", "interrupted"]
    assert json.loads((tmp_path / "sweep/sweep.json").read_text())["status"] == "interrupted"


def test_stop_starts_no_further_cell(
    sweep: Callable[..., Swept], task: list[str], tmp_path: Path
) -> None:
    done = sweep(tmp_path, *task, "student.layers=9,1", "sweep.on_error=stop", "jobs=1")
    assert done.code == 1
    assert [status["status"] for status in statuses(tmp_path)] == ["failed"]
    assert json.loads((tmp_path / "sweep/sweep.json").read_text())["status"] == "failed"
