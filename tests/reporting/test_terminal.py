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
    assert lines["wer"] == ["wer", "30.00", "34.12", "+4.12", "34.22"]
    assert lines["per"] == ["per", "5.20", "7.25", "+2.05", "7.27"]
    assert lines["parameters"][1:] == ["3,000,123", "2,000,000"]
    assert lines["nominal size"][2:] == ["11.77", "MiB", "1.18", "MiB"]
    assert lines["nominal bytes"][2:] == ["12,345,678", "1,234,567"]
    assert lines["nominal ratio"][2:] == ["1.00x", "10.0x"]
    assert lines["size on disk"][3:] == ["964.51", "KiB"]
    assert lines["bytes on disk"][3:] == ["987,654"]
    assert lines["ratio on disk"][3:] == ["12.5x"]
    assert lines["same as student"][3:] == ["99.80", "%"]
    assert lines["items/s"][1:] == ["80.0", "200.0", "500.0"]
    assert lines["speed-up"][1:] == ["1.00x", "2.50x", "6.25x"]
    assert "2-2-8 6-3" in text
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize(("size", "what"), [(None, "No packed file"), (9, "file was not run")])
def test_run_table_says_why_packed_numbers_are_missing(
    sweep: Path, packed_of, size: int | None, what: str
) -> None:
    metrics = Artifact(sweep / "3").read_json("metrics.json")
    console = terminal(80)
    reason = "attention in 4 bits asymmetric is run by torch alone;\nwrite quantizer.attention=" * 2
    packed = packed_of(reason=reason) | {"bytes": size}
    print_run_table(metrics | {"packed": packed}, console)
    *_, last = printed(console).splitlines()
    assert what in last and last.endswith(" ".join(reason.split()))


def test_run_table_of_an_old_record_has_gaps(sweep: Path) -> None:
    console = terminal(80)
    print_run_table(Artifact(sweep / "3").read_json("metrics.json"), console)
    lines = {line[:18].strip(): line[18:].split() for line in printed(console).splitlines()}
    assert lines["bytes on disk"] == lines["same as student"] == ["-"]
    assert lines["items/s"] == ["80.0", "200.0", "-"]


def test_run_table_of_little() -> None:
    console = terminal(80)
    print_run_table({"teacher": {}, "student": {"wer": None}}, console)
    assert "wer" in printed(console)


def test_sweep_table_fits_80_columns(sweep: Path) -> None:
    console = terminal(80)
    print_sweep_table(collect(sweep), console)
    text = printed(console)
    assert "16-16-8 3-3" in text
    assert "teacher" in text
    assert "4-4-8 6-3 failed: RuntimeError: first | line out of memory" in text
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def header_of(sweep: Path, console: Console) -> list[str]:
    print_sweep_table(collect(sweep), console)
    return printed(console).splitlines()[1].split()


def test_both_sizes_are_shown_where_they_fit(sweep: Path) -> None:
    head = "cell status wer drop per drop nominal size ratio on disk ratio".split()
    for console in (terminal(110), terminal(80, is_terminal=False)):
        assert header_of(sweep, console) == head


def test_a_narrow_terminal_shows_the_size_that_all_cells_have(sweep: Path, make_sweep) -> None:
    """In `sweep` one cell has no packed file."""
    assert header_of(sweep, terminal(80))[-3:] == ["nominal", "size", "ratio"]
    packed = make_sweep([(2, "1", "finished"), (4, "6", "finished"), (4, "3", "queued")])
    assert header_of(packed, terminal(80))[4:] == "per drop on disk ratio".split()


def test_a_sweep_of_old_runs_has_one_size(make_sweep) -> None:
    folder = make_sweep([(2, "1", "unpacked"), (4, "6", "unpacked")])
    assert header_of(folder, terminal(200))[-3:] == ["nominal", "size", "ratio"]


def test_one_reason_of_many_cells_is_one_line(make_sweep, packed_of) -> None:
    folder = make_sweep([(bits, "1", "unpacked") for bits in (2, 3, 4, 5, 6)])
    for row in collect(folder):
        artifact = Artifact(row["folder"])
        metrics = artifact.read_json("metrics.json") | {"packed": packed_of(reason="no g++")}
        artifact.write_json("metrics.json", metrics)
    console = terminal(80)
    print_sweep_table(collect(folder), console)
    assert printed(console).splitlines()[-1] == "5 cells: no packed file, no g++"


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


def test_large_models_fit() -> None:
    console = terminal(80)
    size = 1_625_161_728
    side = {"teacher": size, "student_nominal": size, "ratio": 1.0, "stored": size}
    scores = {"rougeLsum": 44.1}
    print_run_table({"teacher": scores, "student": scores, "bytes": side, "drop": scores}, console)
    text = printed(console)
    assert text.count("1,625,161,728 ") == text.count("1.51 GiB") == 3
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
