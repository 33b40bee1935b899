"""sweep.json lists every cell once, in order, wherever cells and sweep lie."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dq_lightning.sweeps.manifest import Cell, Manifest


def cell(folder: Path, name: str) -> Cell:
    return Cell(f"id-{name}", name, (f"quant.bits={name}",), folder / "cells" / name)


def content(folder: Path) -> dict[str, object]:
    return json.loads((folder / "sweep.json").read_text())


def test_cells_are_listed_once_and_in_order(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "sweeps" / "grid")
    manifest.begin("python train.py -m quant.bits=8,2")
    manifest.add([cell(tmp_path, "8"), cell(tmp_path, "2")])
    manifest.add([cell(tmp_path, "2"), cell(tmp_path, "4")])
    manifest.end("finished")
    found = content(tmp_path / "sweeps" / "grid")
    assert found["name"] == "grid"
    assert found["command"] == "python train.py -m quant.bits=8,2"
    assert found["status"] == "finished"
    assert found["cells"] == [
        {
            "id": f"id-{name}",
            "name": name,
            "overrides": [f"quant.bits={name}"],
            "run_dir": f"../../cells/{name}",
        }
        for name in ("8", "2", "4")
    ]


def test_a_sweep_that_begins_again_forgets_the_cells_of_before(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.begin("one")
    manifest.add([cell(tmp_path, "8")])
    manifest.begin("two")
    assert content(tmp_path)["cells"] == []
    assert content(tmp_path)["status"] == "running"


def test_a_sweep_that_plans_no_cell_leaves_the_one_before_it(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.begin("one")
    manifest.add([cell(tmp_path, "8")])
    manifest.end("finished")
    before = content(tmp_path)
    manifest.begin("refused")
    manifest.begin("killed, and refused again")
    manifest.end("failed")
    assert content(tmp_path) == before
    manifest.begin("two")
    manifest.add([cell(tmp_path, "2")])
    manifest.end("finished")
    assert content(tmp_path)["command"] == "two"
    assert [entry["name"] for entry in content(tmp_path)["cells"]] == ["2"]  # type: ignore[attr-defined]
    assert "before" not in content(tmp_path)


def test_jobs_side_by_side_lose_no_cell(tmp_path: Path) -> None:
    Manifest(tmp_path).begin("many")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: Manifest(tmp_path).add([cell(tmp_path, str(n))]), range(24)))
    assert len(content(tmp_path)["cells"]) == 24  # type: ignore[arg-type]
