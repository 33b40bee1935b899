"""`python train.py -m ...`: every cell runs, one report tells of all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Swept = Any  # of conftest.py: exit code, output, cells and report of a sweep that ended

COLUMNS = (
    "cell weight_bits embedding_bits activation_bits encoder_layers decoder_layers status "
    "wer per wer_drop per_drop nominal_bytes ratio"
).split()


@pytest.fixture(scope="module")
def two_cells(
    sweep: Callable[..., Swept], task: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Swept:
    return sweep(tmp_path_factory.mktemp("two"), "quant.bits=2,8", "student.layers=1", *task)


@pytest.fixture(scope="module")
def one_fails(
    sweep: Callable[..., Swept], task: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Swept:
    """The failing cell comes first, so that the other one runs after it."""
    return sweep(tmp_path_factory.mktemp("fails"), "student.layers=9,1", *task)


def test_two_cells_end_with_two_rows(two_cells: Swept) -> None:
    assert two_cells.code == 0, two_cells.err
    assert two_cells.header[: len(COLUMNS)] == COLUMNS
    first, second = two_cells.rows
    assert [row["cell"] for row in (first, second)] == ["2-2-8 1-1", "8-8-8 1-1"]
    for row, bits in ((first, "2"), (second, "8")):
        assert row["status"] == "finished"
        named = [row[name] for name in COLUMNS[1:6]]
        assert named == [bits, bits, "8", "1", "1"]
        assert all(row[name] for name in COLUMNS)
    assert int(first["nominal_bytes"]) < int(second["nominal_bytes"])
    assert float(first["ratio"]) > float(second["ratio"]) > 1


def test_the_sweep_ends_with_its_table(two_cells: Swept) -> None:
    end = two_cells.out[two_cells.out.rindex("[2/2]") :]
    for word in ("teacher", "2-2-8 1-1", "8-8-8 1-1"):
        assert word in end
        assert word in two_cells.report
    assert f"Report: {two_cells.folder / 'sweep' / 'report.md'}" in end
    assert "2 finished" in two_cells.report
    assert "Traceback" not in two_cells.err


def test_every_cell_has_its_artifact_and_the_teacher_was_evaluated_once(
    two_cells: Swept, task: list[str]
) -> None:
    names = [run.name.rpartition("_")[0] for run in two_cells.cells]
    assert names == ["2-2-8_1-1", "8-8-8_1-1"]
    first, second = (json.loads((run / "metrics.json").read_text()) for run in two_cells.cells)
    assert first["teacher"] == second["teacher"]
    (cache,) = (Path(text.partition("=")[2]) for text in task if text.startswith("paths.cache"))
    assert len(list((cache / "evaluations").glob("*.json"))) == 2  # validation and test


def test_a_failing_cell_costs_only_itself(one_fails: Swept) -> None:
    assert one_fails.code == 1
    finished, failed = one_fails.rows
    assert (finished["cell"], finished["status"]) == ("2-2-8 1-1", "finished")
    assert (failed["cell"], failed["status"]) == ("2-2-8 9-9", "failed")
    assert failed["encoder_layers"] == "9"
    assert failed["wer"] == ""
    assert one_fails.header[: len(COLUMNS)] == COLUMNS


def test_the_report_lists_the_failure(one_fails: Swept) -> None:
    assert "1 finished, 1 failed" in one_fails.report
    failures = one_fails.report.partition("## Failed cells")[2]
    for text in (failures, one_fails.out):
        assert "2-2-8 9-9" in text
        assert "write student.layers=2 or fewer." in text
    assert "9-9_" in failures and "/status.json" in failures


def test_a_failed_sweep_says_which_cell_in_two_lines(one_fails: Swept) -> None:
    lines = one_fails.err.splitlines()
    assert any("student.layers=9" in line for line in lines)
    assert "write student.layers=2 or fewer." in lines[-2]
    assert "Traceback" not in one_fails.err
