"""A sweep's figures: their axes say whose size and time they show."""

from pathlib import Path

import pytest

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.reporting import sweep_figures
from dq_lightning.reporting.collect import collect
from dq_lightning.reporting.report import write_report


def test_figures_take_any_name(make_sweep) -> None:
    folder = make_sweep([(2, "1", "finished")])
    run = Artifact(collect(folder)[0]["folder"])
    cell = {"name": "_$\\frac{$_", "weight_bits": None}
    run.write_json("metrics.json", run.read_json("metrics.json") | {"cell": cell})
    sweep_figures.write_figures(collect(folder), folder)
    assert sorted(file.name for file in folder.glob("*.png")) == ["size.png", "time.png"]


def axis_labels(folder: Path) -> list[str]:
    rows = [row for row in collect(folder) if row["status"] == "finished"]
    costs = (sweep_figures.size_cost(rows), sweep_figures.time_cost(rows))
    return [cost.label for cost in costs]


def test_figures_show_the_packed_file_where_every_cell_has_one(make_sweep) -> None:
    packed = make_sweep([(2, "1", "finished"), (4, "1", "finished"), (8, "1", "failed")])
    assert axis_labels(packed) == [
        "size on disk, MB",
        "the packed file's generation time, ms an item",
    ]
    rows = [row for row in collect(packed) if row["status"] == "finished"]
    size, time = sweep_figures.size_cost(rows), sweep_figures.time_cost(rows)
    assert size.student(rows[1]) == pytest.approx(0.322590)
    assert time.student(rows[1]) == pytest.approx(0.3)
    assert (size.teacher(rows[1]), time.teacher(rows[1])) == (12.345678, 12.5)
    assert time.log  # 12.5 ms stand beside 0.3 ms


def test_figures_of_mixed_cells_show_what_all_have(make_sweep) -> None:
    mixed = make_sweep([(2, "1", "finished"), (4, "1", "unpacked")])
    assert axis_labels(mixed) == ["nominal size, MB", "the student's generation time, ms an item"]


def test_figures_wait_for_the_last_cell(make_sweep, monkeypatch) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(sweep_figures, "write_figures", lambda rows, folder: drawn.append(folder))
    folder = make_sweep([(2, "1", "finished"), (4, "3", "queued")], "running")
    write_report(folder)
    assert drawn == []
    write_report(folder, figures=True)
    assert drawn == [folder]
