"""Tables stay whole at 80 columns and in a log file."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.reporting.collect import collect
from dq_lightning.reporting.terminal import print_run_table, print_sweep_table


def terminal(width: int, is_terminal: bool = True, encoding: str = "utf-8") -> Console:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    return Console(file=stream, width=width, force_terminal=is_terminal, color_system=None)


def printed(console: Console) -> str:
    console.file.seek(0)
    return console.file.read()


def test_run_table_has_both_sides(sweep: Path) -> None:
    console = terminal(80)
    print_run_table(Artifact(sweep / "2").read_json("metrics.json"), console)
    text = printed(console)
    lines = {
        line.split("  ")[1].strip(): line.split() for line in text.splitlines() if "  " in line
    }
    assert lines["wer"] == ["wer", "30.00", "34.12", "+4.12"]
    assert lines["per"] == ["per", "5.20", "7.25", "+2.05"]
    assert lines["parameters"][1:] == ["3,000,123", "2,000,000"]
    assert lines["ratio"][1:] == ["1.00x", "10.0x"]
    assert "12,345,678 B (11.77 MiB)" in text
    assert "5.00 s (200 items/s)" in text
    assert "2-2-8 6-3" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_run_table_of_little() -> None:
    console = terminal(80)
    print_run_table({"teacher": {}, "student": {"wer": None}}, console)
    assert "wer" in printed(console)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_sweep_table_fits_80_columns(sweep: Path, is_terminal: bool) -> None:
    console = terminal(80, is_terminal)
    print_sweep_table(collect(sweep), console)
    text = printed(console)
    assert "16-16-8 3-3" in text
    assert "teacher" in text
    assert "4-4-8 6-3 failed: RuntimeError: first | line out of memory" in text
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def with_rouge(sweep: Path) -> None:
    for number in "0123":
        artifact = Artifact(sweep / number)
        rouge = {f"rouge{kind}": 0.1234 for kind in ("1", "2", "L", "Lsum")}
        metrics = artifact.read_json("metrics.json")
        artifact.write_json(
            "metrics.json",
            metrics
            | {"teacher": rouge, "student": rouge, "drop": rouge, "primary_metric": "rougeL"},
        )


def test_narrow_terminal_keeps_the_primary_metric(sweep: Path) -> None:
    with_rouge(sweep)
    console = terminal(80)
    print_sweep_table(collect(sweep), console)
    text = printed(console)
    assert "rougeL " in text
    assert "rougeLsum" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_log_file_gets_every_metric(sweep: Path) -> None:
    with_rouge(sweep)
    console = terminal(60, is_terminal=False)
    print_sweep_table(collect(sweep), console)
    text = printed(console)
    header = text.splitlines()[1]
    assert header.split()[2::2][:4] == ["rougeL", "rouge1", "rouge2", "rougeLsum"]
    assert "…" not in text


def test_ascii_streams_do_not_raise(sweep: Path) -> None:
    console = terminal(80, is_terminal=False, encoding="ascii")
    print_sweep_table(collect(sweep), console)
    print_run_table(Artifact(sweep / "2").read_json("metrics.json"), console)
    printed(console).encode("ascii")


def test_no_cells_yet(tmp_path: Path) -> None:
    console = terminal(80)
    print_sweep_table(collect(tmp_path), console)
    assert "cell" in printed(console)


def test_large_models_wrap_but_lose_nothing() -> None:
    console = terminal(80)
    size = 1_625_161_728
    side = {"teacher": size, "student": size, "student_nominal": size, "ratio": 1.0}
    scores = {"rougeLsum": 44.1}
    print_run_table({"teacher": scores, "student": scores, "bytes": side, "drop": scores}, console)
    text = printed(console)
    assert text.count("1,625,161,728 B") == 2
    assert text.count("(1.51") == text.count("GiB)") == 2
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
