"""The report's two files: one for people, one for programs."""

import csv
from pathlib import Path

import pytest

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.reporting.__main__ import main
from dq_lightning.reporting.collect import collect, columns
from dq_lightning.reporting.formats import (
    format_bytes,
    format_metric,
    format_ratio,
    format_seconds,
    format_share,
)
from dq_lightning.reporting.latex import escape, to_latex
from dq_lightning.reporting.report import write_report
from dq_lightning.reporting.tables import sweep_name, to_markdown


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
    assert (finished["stored_bytes"], finished["packed_identical"]) == ("987654", "0.998")
    unpacked = next(row for row in found if row["cell"] == "8-8-8 1-1")
    assert {unpacked[name] for name in unpacked if name.startswith(("stored", "packed"))} == {""}


def test_markdown_puts_the_teacher_on_top(sweep: Path) -> None:
    write_report(sweep)
    text = (sweep / "report.md").read_text()
    assert text.startswith("# Sweep sweep\n")
    table = table_lines(text.partition("## Time")[0])
    head = "cell|status|wer|per|wer drop|per drop|nominal size|ratio|on disk|ratio"
    assert table[0] == f"{head}|packed wer|identical".split("|")
    assert table[2][0] == "**teacher**"
    assert table[2][2:4] == ["30.00", "5.20"]
    assert table[4] == [
        "2-2-8 6-3", "finished", "34.12", "7.25", "+4.12", "+2.05",
        "1,234,567 B (1.18 MiB)", "10.0x", "987,654 B (964.51 KiB)", "12.5x", "34.22", "99.80 %",
    ]  # fmt: skip
    assert table[6][:2] == ["8-8-8 1-1", "finished"]
    assert table[6][8:] == ["-"] * 4
    assert len(table) == 2 + 1 + 6
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 2  # Time's too


def test_markdown_says_where_the_figures_come_from(sweep: Path) -> None:
    text = to_markdown(collect(sweep), "x")
    assert "device: cpu · seed: 1 · steps: 1200 · items: train 110,000 test 1000" in text
    assert "```\npython train.py -m\n```" in text
    assert "4 finished" in text


def test_markdown_lists_failures(sweep: Path) -> None:
    text = to_markdown(collect(sweep), "x")
    failures = text.partition("## Failed cells")[2].partition("## Time")[0]
    assert "4-4-8 6-3 (failed): RuntimeError: first | line out of memory" in failures
    assert failures.count("\n- ") == 1


def test_markdown_says_why_there_is_no_packed_file(sweep: Path, packed_of) -> None:
    assert "## Not packed" not in to_markdown(collect(sweep), "x")
    for number, packed in (
        ("0", packed_of(reason="no compiler")),
        ("1", packed_of(reason="no compiler")),
        ("2", packed_of() | {"scores": None, "reason": "4-bit activations"}),
    ):
        artifact = Artifact(sweep / number)
        metrics = artifact.read_json("metrics.json") | {"packed": packed}
        if packed["file"] is None:
            metrics["bytes"].pop("stored")
        artifact.write_json("metrics.json", metrics)
    section = to_markdown(collect(sweep), "x").partition("## Not packed\n\n")[2]
    assert section.partition("\n\n")[0].splitlines() == [
        "- 2-2-8 6-3: file not run, 4-bit activations",
        "- 8-8-8 6-3, 16-16-8 3-3: no packed file, no compiler",
    ]


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


def test_clocks_stand_apart(sweep: Path) -> None:
    """Cells that were trained again give the same csv, byte for byte."""
    write_report(sweep)
    before = (sweep / "report.csv").read_bytes(), (sweep / "report.md").read_text()
    for run in sweep.iterdir():
        if run.is_dir():
            status = Artifact(run).read_json("status.json")
            later = {"seconds": 99.5, "started": "2027-01-01", "ended": "2027-01-02", "pid": 1}
            Artifact(run).write_json("status.json", status | {**later, "host": "elsewhere"})
    metrics = Artifact(sweep / "1").read_json("metrics.json")
    seconds = {"generation_seconds": {"teacher": 10.0, "student": 2.0, "packed": 0.5}}
    Artifact(sweep / "1").write_json("metrics.json", metrics | seconds)
    write_report(sweep)
    assert (sweep / "report.csv").read_bytes() == before[0]
    after = (sweep / "report.md").read_text()
    assert after.partition("## Time")[0] == before[1].partition("## Time")[0]
    assert "500.0" in after.partition("## Time")[2]
    with (sweep / "timing.csv").open(newline="") as stream:
        times = {row["run_dir"]: row for row in csv.DictReader(stream)}
    assert len(times) == 6
    assert times["1"]["seconds"] == "99.5"
    assert times["1"]["student_generation_seconds"] == "2.0"
    assert float(times["1"]["student_items_per_second"]) == 500.0
    assert times["1"]["timed_items"] == "1000"
    assert times["5"]["student_items_per_second"] == ""
    packed = ("packed_generation_seconds", "packed_items_per_second", "packed_speedup")
    assert [float(times["1"][name]) for name in packed] == [0.5, 2000.0, 20.0]
    assert [times["3"][name] for name in packed] == [""] * 3
    timed = {line[0]: line[-2:] for line in table_lines(after.partition("## Time")[2])}
    assert timed["8-8-8 6-3"] == ["2,000.0", "20.0x"]


def test_cells_of_one_name_are_told_apart_by_their_overrides(make_sweep) -> None:
    folder = make_sweep([(2, "6-3", "finished", seed) for seed in (1, 2)])
    text = to_markdown(collect(folder), "x")
    assert "2-2-8 6-3 (seed=1)" in text
    assert "2-2-8 6-3 (seed=2)" in text


def test_the_sweeps_own_command_is_shown(make_sweep) -> None:
    folder = make_sweep([(2, "1", "finished"), (4, "1", "finished")])
    write_report(folder, figures=False)
    text = (folder / "report.md").read_text()
    assert text.startswith("# Sweep grid-0a1b2c\n")
    assert text.count("python train.py -m quant.bits=2,4,8") == 1


def test_latex_is_escaped(sweep: Path) -> None:
    status = Artifact(sweep / "1").read_json("status.json")
    metrics = Artifact(sweep / "1").read_json("metrics.json")
    cell = metrics["cell"] | {"name": "a_b & 5% \\x"}
    Artifact(sweep / "1").write_json("metrics.json", metrics | {"cell": cell})
    assert status["status"] == "finished"
    text = to_latex(collect(sweep), "a\nname")
    assert r"a\_b \& 5\% \textbackslash{}x & 34.12 & $+4.12$" in text
    assert r"teacher & 30.00 &  & 5.20 &  & 11.77 MiB & $1.00\times$ & 11.77 MiB &" in text
    assert r"& 1.18 MiB & $10.0\times$ & 964.51 KiB & $12.5\times$ \\" in text
    assert r"& 1.18 MiB & $10.0\times$ & -- & -- \\" in text
    assert text.startswith("% a name: 4 of 6 cells finished.\n")
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 1 + 1 + 4
    assert {line.replace(r"\&", "").count("&") for line in lines} == {8}
    assert r"\begin{tabular}{lrrrrrrrr}" in text


def test_latex_leaves_a_column_out_that_no_cell_fills(make_sweep) -> None:
    text = to_latex(collect(make_sweep([(2, "1", "unpacked")])), "x")
    assert r"cell & wer & drop & per & drop & nominal size & ratio \\" in text


def test_latex_of_every_special_character() -> None:
    assert escape("#$%&_{}") == r"\#\$\%\&\_\{\}"
    assert escape("\\~^<>|") == (
        r"\textbackslash{}\textasciitilde{}\textasciicircum{}"
        r"\textless{}\textgreater{}\textbar{}"
    )


def test_all_and_nearly_all_are_told_apart() -> None:
    shares = (None, 0.0, 0.998, 0.99999, 1.0)
    assert [format_share(s) for s in shares] == ["-", "0.00 %", "99.80 %", "99.99 %", "100 %"]


def test_seconds() -> None:
    times = (None, 0.0123, 5.0, 59.94, 65, 7380)
    assert [format_seconds(s) for s in times] == [
        "-", "12.3 ms", "5 s", "59.9 s", "1 min 05 s", "2 h 03 min",
    ]  # fmt: skip


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
