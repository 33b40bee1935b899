"""The report's two files: one for people, one for programs."""

import csv
from pathlib import Path

import pytest

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.reporting.__main__ import main
from dq_lightning.reporting.collect import collect, columns
from dq_lightning.reporting.tables import (
    format_bytes,
    format_metric,
    format_ratio,
    sweep_name,
    to_markdown,
    write_report,
)


def table_lines(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_csv_has_one_row_a_cell_and_raw_numbers(sweep: Path) -> None:
    rows = write_report(sweep)
    with (sweep / "report.csv").open(newline="") as stream:
        reader = csv.DictReader(stream)
        found = list(reader)
    assert reader.fieldnames == columns(rows)
    assert len(found) == 6
    finished = found[1]
    assert finished["cell"] == "2-2-8 6-3"
    assert finished["nominal_bytes"] == "1234567"
    assert float(finished["wer"]) == 34.12
    assert found[0]["wer"] == ""


def test_markdown_puts_the_teacher_on_top(sweep: Path) -> None:
    write_report(sweep)
    text = (sweep / "report.md").read_text()
    assert text.startswith("# Sweep sweep\n")
    table = table_lines(text)
    assert table[0] == "cell|status|wer|per|wer drop|per drop|nominal size|ratio".split("|")
    assert table[2][0] == "**teacher**"
    assert table[2][2:4] == ["30.00", "5.20"]
    assert table[4] == [
        "2-2-8 6-3", "finished", "34.12", "7.25", "+4.12", "+2.05",
        "1,234,567 B (1.18 MiB)", "10.0x",
    ]  # fmt: skip
    assert len(table) == 2 + 1 + 6
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1


def test_markdown_says_where_the_figures_come_from(sweep: Path) -> None:
    text = to_markdown(collect(sweep), "x")
    assert "device: cpu · seed: 1 · steps: 1200 · items: train 110,000 test 1000" in text
    assert "```\npython train.py -m\n```" in text
    assert "4 finished" in text


def test_markdown_lists_failures(sweep: Path) -> None:
    text = to_markdown(collect(sweep), "x")
    _, _, failures = text.partition("## Failed cells")
    assert "4-4-8 6-3 (failed): RuntimeError: first | line out of memory" in failures
    assert failures.count("\n- ") == 1


def test_an_empty_sweep_has_a_report(tmp_path: Path) -> None:
    assert write_report(tmp_path) == []
    assert "none yet" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "report.csv").read_text().startswith("cell,weight_bits")


def test_runs_of_one_cell_are_told_apart(sweep: Path, make_run) -> None:
    make_run("again", 2, 6, 3)
    text = to_markdown(collect(sweep), "x")
    assert "2-2-8 6-3 (2)" in text
    assert "2-2-8 6-3 (again)" in text


def test_two_teachers_have_two_rows(sweep: Path) -> None:
    other = Artifact(sweep / "2")
    metrics = other.read_json("metrics.json")
    other.write_json("metrics.json", metrics | {"teacher": {"per": 1.0, "wer": 9.0}})
    assert to_markdown(collect(sweep), "x").count("**teacher**") == 2


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1,024 B (1.00 KiB)"),
        (1_234_567, "1,234,567 B (1.18 MiB)"),
        (3 * 2**30, "3,221,225,472 B (3.00 GiB)"),
    ],
)
def test_bytes(size: int | None, text: str) -> None:
    assert format_bytes(size) == text


def test_metric_columns_share_their_decimals() -> None:
    assert format_metric(0.5, [0.5, 34.0]) == "0.50"
    assert format_metric(0.3412, [0.3412, None]) == "0.3412"
    assert format_metric(-1.5, [34.0], sign=True) == "-1.50"
    assert format_metric(None, [None]) == "-"
    assert [format_ratio(value) for value in (1.25, 12.34, None)] == ["1.25x", "12.3x", "-"]


def test_a_time_of_day_is_named_with_its_day(tmp_path: Path) -> None:
    assert sweep_name(tmp_path / "2026-01-31" / "12-00-59") == "2026-01-31/12-00-59"
    assert sweep_name(tmp_path / "grid") == "grid"


def test_command_rebuilds_the_report(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep)]) == 0
    assert (sweep / "report.md").exists()
    out = capsys.readouterr().out
    assert "2-2-8 6-3" in out
    assert "report.md" in out


def test_command_without_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "nowhere" in captured.err
    assert captured.err.count("\n") == 1
