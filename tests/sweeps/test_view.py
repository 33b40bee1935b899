"""What a person reads of a sweep: each start and end, the time left, the best so far."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from dq_lightning.sweeps import view as module
from dq_lightning.sweeps.manifest import Cell
from dq_lightning.sweeps.view import Lines, Picture, labels


def cell(folder: Path, name: str, *overrides: str) -> Cell:
    return Cell(f"id {name} {overrides}", name, overrides, folder / name / "_".join(overrides))


def finish(cell: Cell, drop: float) -> None:
    cell.folder.mkdir(parents=True)
    (cell.folder / "status.json").write_text('{"status": "finished"}')
    metrics = {"primary_metric": "wer", "student": {"wer": 30 + drop}, "drop": {"wer": drop}}
    (cell.folder / "metrics.json").write_text(json.dumps(metrics))


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    return [cell(tmp_path, name) for name in ("8-8-8 6-6", "2-2-8 6-3", "2-2-8 1-1")]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_file_has_a_line_for_each_start_and_end(
    cells: list[Cell], clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = cells
    finish(first, 0.5)
    view = Lines(cells, 1)
    view.skip([first.id])
    view.show([second.id])
    clock[0] = 90.0
    finish(second, 2.5)
    view.end(second.id, well=True)
    view.show([third.id])
    clock[0] = 95.0
    third.folder.mkdir(parents=True)
    (third.folder / "status.json").write_text('{"status": "failed", "error": "ValueError: no"}')
    view.end(third.id, well=False)
    assert capsys.readouterr().out.splitlines() == [
        "1 cell finished already, 2 to run",
        "[1/3] started   2-2-8 6-3",
        "[2/3]  finished   2-2-8 6-3  1:30  wer 32.50 (+2.50)  about 1:30 left",
        "[2/3] started   2-2-8 1-1",
        "[3/3]  failed     2-2-8 1-1  0:05  ValueError: no",
    ]
    assert view.best == (0.5, "8-8-8 6-6  wer 30.50 (+0.50)")


def test_the_time_left_is_shared_between_slots(cells: list[Cell], clock: list[float]) -> None:
    view = Lines(cells, 2)
    assert view.seconds_left() is None
    view.show([cells[0].id])
    clock[0] = 60.0
    finish(cells[0], 1.0)
    view.end(cells[0].id, well=True)
    view.show([cells[1].id])
    clock[0] = 80.0
    assert view.seconds_left() == (60.0 - 20.0 + 60.0) / 2


def test_a_terminal_shows_how_far_each_cell_is(cells: list[Cell]) -> None:
    console = Console(width=120, record=True, force_terminal=True)
    running = cells[1]
    running.folder.mkdir(parents=True)
    progress = {
        "stage": "train",
        "step": 300,
        "steps": 1200,
        "validation": {"wer": 40.125, "x": None},
    }
    (running.folder / "progress.json").write_text(json.dumps(progress))
    with Live(console=console, auto_refresh=False) as live:
        view = Picture(cells, 1, live)
        view.show([running.id])
        live.refresh()
    text = console.export_text()
    for words in ("300/1,200", "train", "wer 40.12", "0 of 3 cells done", "1 running, 2 queued"):
        assert words in text


def test_cells_of_one_name_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    same = [cell(tmp_path, "8-8-8 1-1", f"seed={n}", "quant.bits=8") for n in (1, 2)]
    other = cell(tmp_path, "2-2-8 1-1", "seed=1", "quant.bits=2")
    assert list(labels([*same, other]).values()) == [
        "8-8-8 1-1 seed=1",
        "8-8-8 1-1 seed=2",
        "2-2-8 1-1",
    ]
