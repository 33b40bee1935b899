"""Rows come out sorted and complete, whatever state the run folders are in."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.reporting.collect import collect, columns


def test_rows_are_sorted_by_bits_and_layers_as_numbers(sweep: Path) -> None:
    assert [row["cell"] for row in collect(sweep)] == [
        "2-2-8 1-1",
        "2-2-8 6-3",
        "4-4-8 6-3",
        "8-8-8 1-1",
        "8-8-8 6-3",
        "16-16-8 3-3",
    ]


def test_columns_are_the_agreed_ones(sweep: Path) -> None:
    agreed = (
        "cell weight_bits embedding_bits activation_bits encoder_layers decoder_layers status "
        "wer per wer_drop per_drop nominal_bytes ratio "
        "stored_bytes stored_ratio packed_identical packed_wer"
    )
    rows = collect(sweep)
    assert columns(rows) == [*agreed.split(), "run_dir", "error"]
    finished = next(row for row in rows if row["cell"] == "2-2-8 6-3")
    assert [finished[name] for name in columns(rows)][:17] == [
        "2-2-8 6-3", 2, 2, 8, 6, 3, "finished", 34.12, 7.25,
        pytest.approx(4.12), 2.05, 1_234_567, 10.0, 987_654, 12.5, 0.998, pytest.approx(34.22),
    ]  # fmt: skip
    assert finished["teacher"]["metrics"] == {"per": 5.2, "wer": 30.0}


def test_a_cell_without_a_packed_file_has_empty_columns(sweep: Path) -> None:
    rows = {row["cell"]: row for row in collect(sweep)}
    packed = ("stored_bytes", "stored_ratio", "packed_identical", "packed_wer")
    for name in ("8-8-8 1-1", "2-2-8 1-1"):  # finished without one; running
        assert [rows[name].get(column) for column in packed] == [None] * 4
        assert rows[name]["packed"]["reason"] is None
        assert rows[name]["times"]["packed_speedup"] is None
    assert rows["2-2-8 6-3"]["times"]["packed_seconds_an_item"] == 0.002
    assert rows["2-2-8 6-3"]["times"]["packed_speedup"] == 6.25


@pytest.mark.parametrize(
    "packed", [3, [], {"scores": [1], "identical": "all"}, {"scores": {"wer": "x"}, "drop": None}]
)
def test_a_broken_packed_entry_does_not_raise(sweep: Path, packed: object) -> None:
    artifact = Artifact(sweep / "2")
    artifact.write_json("metrics.json", artifact.read_json("metrics.json") | {"packed": packed})
    row = next(row for row in collect(sweep) if row["run_dir"] == "2")
    assert (row["wer"], row["packed_identical"], row["packed_wer"]) == (34.12, None, None)


def test_a_reason_is_one_line(sweep: Path) -> None:
    artifact = Artifact(sweep / "2")
    packed = {"reason": "no compiler\n  was found", "scores": None}
    artifact.write_json("metrics.json", artifact.read_json("metrics.json") | {"packed": packed})
    row = next(row for row in collect(sweep) if row["run_dir"] == "2")
    assert row["packed"]["reason"] == "no compiler was found"


@pytest.mark.parametrize("primary", [3, ["wer"], None])
def test_a_primary_metric_that_is_no_name_does_not_raise(sweep: Path, primary: object) -> None:
    artifact = Artifact(sweep / "2")
    metrics = artifact.read_json("metrics.json") | {"primary_metric": primary}
    artifact.write_json("metrics.json", metrics)
    assert "packed_wer" in columns(collect(sweep))


def test_failed_and_running_cells_keep_their_place(sweep: Path) -> None:
    rows = {row["cell"]: row for row in collect(sweep)}
    failed = rows["4-4-8 6-3"]
    assert failed["status"] == "failed"
    assert failed["weight_bits"] == 4
    assert failed["error"] == "RuntimeError: first | line out of memory"
    assert rows["2-2-8 1-1"]["status"] == "running"
    assert rows["2-2-8 1-1"]["nominal_bytes"] is None


@pytest.mark.parametrize("content", ["", '{"status": "fin', "[1]", "null", "\x00"])
@pytest.mark.parametrize("name", ["status.json", "metrics.json"])
def test_broken_files_make_an_unreadable_row(sweep: Path, name: str, content: str) -> None:
    (sweep / "2" / name).write_text(content)
    row = next(row for row in collect(sweep) if row["run_dir"] == "2")
    assert row["status"] == "unreadable"
    assert row["error"].startswith(name)


@pytest.mark.parametrize(
    "metrics",
    [{}, {"student": 3}, {"student": {"wer": 1.0}, "cell": None, "bytes": [], "drop": "x"}],
)
def test_partial_metrics_do_not_raise(sweep: Path, metrics: dict[str, object]) -> None:
    Artifact(sweep / "2").write_json("metrics.json", metrics)
    assert len(collect(sweep)) == 6


def test_bytes_that_are_not_text_do_not_raise(sweep: Path) -> None:
    (sweep / "2" / "metrics.json").write_bytes(b"\xff\xfe\x00")
    (sweep / "3" / "metrics.json").unlink()
    rows = {row["run_dir"]: row for row in collect(sweep)}
    assert rows["2"]["status"] == "unreadable"
    assert rows["3"]["error"] == "metrics.json is missing"


def test_figures_of_an_earlier_run_are_not_shown_for_a_running_one(sweep: Path) -> None:
    status = Artifact(sweep / "2").read_json("status.json")
    Artifact(sweep / "2").write_json("status.json", status | {"status": "running"})
    row = next(row for row in collect(sweep) if row["run_dir"] == "2")
    assert row["status"] == "running"
    assert "wer" not in row


def test_nan_metric_is_an_empty_cell(sweep: Path, make_run) -> None:
    make_run("9", 3, 3, 3, wer=math.nan)
    row = next(row for row in collect(sweep) if row["run_dir"] == "9")
    assert row["status"] == "finished"
    assert row["wer"] is None


def test_folders_inside_a_run_are_not_runs(sweep: Path) -> None:
    Artifact(sweep / "2" / "logs").write_json("status.json", {"status": "finished"})
    assert len(collect(sweep)) == 6


def test_one_run_is_a_sweep_of_one(sweep: Path) -> None:
    (row,) = collect(sweep / "2")
    assert row["cell"] == "2-2-8 6-3"
    assert row["run_dir"] == "."


def test_no_runs_no_rows(tmp_path: Path) -> None:
    assert collect(tmp_path) == []


def test_a_manifest_names_the_cells(make_sweep) -> None:
    folder = make_sweep([(8, "3", "running"), (2, "3", "queued"), (2, "1", "finished")], "running")
    Artifact(folder / "stray").write_json("status.json", {"status": "finished"})
    rows = collect(folder)
    assert [(row["cell"], row["status"]) for row in rows] == [
        ("2-2-8 1-1", "finished"), ("2-2-8 3-3", "queued"), ("8-8-8 3-3", "running"),
    ]  # fmt: skip
    assert rows[0]["run_dir"].startswith("../../cells/2-2-8_1-1_")
    assert (rows[0]["folder"] / "metrics.json").is_file()
    assert (rows[1]["weight_bits"], rows[1]["decoder_layers"]) == (2, 3)
    assert rows[2]["progress"]["step"] == 640
    assert rows[2]["overrides"] == ["quant.bits=8", "student.layers=3", "seed=28"]


@pytest.mark.parametrize("content", ["", "[]", '{"cells": 3}', '{"cells": [3, {"name": "x"}]}'])
def test_a_broken_manifest_does_not_raise(sweep: Path, content: str) -> None:
    (sweep / "sweep.json").write_text(content)
    assert len(collect(sweep)) == (0 if "[3," in content else 6)


def test_a_run_whose_process_is_gone_is_interrupted(sweep: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    found = []
    for pid, host in [(child.pid, socket.gethostname()), (os.getpid(), socket.gethostname()),
                      (child.pid, "elsewhere")]:  # fmt: skip
        status = json.loads((sweep / "5" / "status.json").read_text())
        Artifact(sweep / "5").write_json("status.json", status | {"pid": pid, "host": host})
        found += [row["status"] for row in collect(sweep) if row["run_dir"] == "5"]
    assert found == ["interrupted", "running", "running"]


def test_without_a_manifest_hydras_overrides_count(sweep: Path) -> None:
    for run, text in (("1", "- quant=tbt\n- 'distill={a: b}'\n"), ("2", "a: ["), ("3", "x: 1")):
        (sweep / run / ".hydra").mkdir()
        (sweep / run / ".hydra" / "overrides.yaml").write_text(text)
    found = {row["run_dir"]: row["overrides"] for row in collect(sweep)}
    assert found["1"] == ["quant=tbt", "distill={a: b}"]
    assert found["2"] == found["3"] == []


@pytest.mark.parametrize("content", ["", "[1]", '{"step": "many"}'])
def test_broken_progress_does_not_raise(sweep: Path, content: str) -> None:
    (sweep / "5" / "progress.json").write_text(content)
    assert len(collect(sweep)) == 6
