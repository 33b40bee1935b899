"""The tables a run and a sweep end with, in the terminal or in a log file."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dq_lightning.reporting.collect import WRITERS, Row, metric_names
from dq_lightning.reporting.costs import Size, main_size, sizes_of, teacher_size
from dq_lightning.reporting.formats import (
    MISSING,
    format_bytes,
    format_metric,
    format_ratio,
    format_seconds,
    format_share,
    format_speed,
)
from dq_lightning.reporting.tables import labels, packing_reasons, teachers

STATUS_STYLES = {
    "finished": "green",
    "failed": "red",
    "unreadable": "red",
    "running": "yellow",
    "interrupted": "yellow",
    "queued": "dim",
}


def print_run_table(metrics: Mapping[str, Any], console: Console | None = None) -> None:
    """Teacher, student and its packed file side by side: metrics, sizes, speed.

    What is nominal and what lies on disk have lines of their own. Below stands why numbers of the
    packed file are missing.
    """
    cell, packed = metrics.get("cell") or {}, metrics.get("packed") or {}
    scores = packed.get("scores") or {}
    table = Table(box=box.SIMPLE_HEAD, title=f"Student {cell.get('name', '')}".strip())
    table.add_column("")
    for name in ("teacher", "student", "drop", "packed file"):
        table.add_column(name, justify="right")
    primary = metrics.get("primary_metric")
    for name in sorted(metrics["student"], key=lambda name: name != primary):
        values = metrics["teacher"].get(name), metrics["student"][name]
        drop = (metrics.get("drop") or {}).get(name)
        shown = [format_metric(value, values) for value in values]
        shown += [format_metric(drop, values, sign=True), format_metric(scores.get(name), values)]
        table.add_row(name, *shown, style="bold" if name == primary else "")
    for name, *shown in _cost_lines(metrics):
        table.add_row(name, *shown[:2], "", *shown[2:])
    print_table(table, console)
    if packed.get("reason"):
        what = "The packed file was not run" if packed.get("bytes") else "No packed file"
        line = f"{what}: {' '.join(str(packed['reason']).split())}"
        (console or Console()).print(Text(line, style="yellow"), soft_wrap=True)


def _cost_lines(metrics: Mapping[str, Any]) -> list[list[str]]:
    """Name, teacher, student, packed file."""
    parameters = metrics.get("parameters") or {}
    sizes = metrics.get("bytes") or {}
    nominal = sizes.get("teacher"), sizes.get("student_nominal")
    stored = sizes.get("stored")
    ratio = ["", "", format_ratio(sizes.get("stored_ratio"))]
    identical = (metrics.get("packed") or {}).get("identical")
    return [
        ["same as student", "", "", format_share(identical)],
        ["parameters", _count(parameters.get("teacher")), _count(parameters.get("student")), ""],
        ["nominal size", *(format_bytes(size, exact=False) for size in nominal), ""],
        ["nominal bytes", *map(_count, nominal), ""],
        ["nominal ratio", format_ratio(1.0), format_ratio(sizes.get("ratio")), ""],
        ["size on disk", "", "", format_bytes(stored, exact=False)],
        ["bytes on disk", "", "", _count(stored)],
        ["ratio on disk", *ratio],
        *_time_lines(metrics),
    ]


def _time_lines(metrics: Mapping[str, Any]) -> list[list[str]]:
    found = metrics.get("generation_seconds") or {}
    items = metrics.get("timed_items") or 0
    seconds = [found.get(who) or None for who in WRITERS]
    speeds = [items / s if s and items else None for s in seconds]
    times = [seconds[0] / s if s and seconds[0] else None for s in seconds]
    return [
        ["generation", *map(format_seconds, seconds)],
        ["items/s", *map(format_speed, speeds)],
        ["speed-up", *map(format_ratio, times)],
    ]


def _count(number: int | None) -> str:
    return MISSING if number is None else f"{number:,}"


def print_sweep_table(rows: Sequence[Row], console: Console | None = None) -> None:
    """One line a cell below its teacher, with what fits the width.

    Where it does not fit, sizes on disk stand instead of nominal ones, then metrics go, the primary
    one last.
    """
    console = console or Console()
    names, sizes = metric_names(rows), sizes_of(rows)
    table = _sweep_table(rows, names, sizes)
    while console.is_terminal and table_width(table, console) > console.width:
        if len(sizes) == 1 and len(names) < 2:
            break
        names = names if len(sizes) > 1 else names[:-1]
        sizes = [main_size(rows)]
        table = _sweep_table(rows, names, sizes)
    print_table(table, console)
    for label, row in zip(labels(rows), rows, strict=True):
        if row["error"]:
            line = f"{label} {row['status']}: {row['error']}"
            console.print(Text(line, style="red"), soft_wrap=True)
    for line in packing_reasons(rows):
        console.print(Text(line, style="yellow"), soft_wrap=True)


def _sweep_table(rows: Sequence[Row], names: Sequence[str], sizes: Sequence[Size]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("cell")
    table.add_column("status")
    for title in (part for name in names for part in (name, "drop")):
        table.add_column(title, justify="right")
    for title in (part for size in sizes for part in size.header()):
        table.add_column(title, justify="right")
    column = {
        name: [*(row.get(name) for row in rows), *(t["metrics"].get(name) for t in teachers(rows))]
        for name in names
    }
    for teacher in teachers(rows):
        values = teacher["metrics"]
        shown = [[format_metric(values.get(name), column[name]), ""] for name in names]
        shown.append(teacher_size(teacher["bytes"], sizes, exact=False))
        table.add_row("teacher", "", *sum(shown, []), style="bold")
    for label, row in zip(labels(rows), rows, strict=True):
        shown = [
            [
                format_metric(row.get(name), column[name]),
                format_metric(row.get(f"{name}_drop"), column[name], sign=True),
            ]
            for name in names
        ]
        shown += [size.shown(row, exact=False) for size in sizes]
        status = Text(row["status"], style=STATUS_STYLES.get(row["status"], ""))
        table.add_row(Text(label), status, *sum(shown, []))
    return table


def print_table(table: Table, console: Console | None) -> None:
    """Prints without cutting a word: a log file has no width, so there the table takes its own."""
    console = console or Console()
    width = console.width
    if not console.is_terminal:
        console.width = max(width, table_width(table, console))
    console.print(table)
    console.width = width


def table_width(table: Table, console: Console) -> int:
    """Columns that the table takes where nothing is cut."""
    unlimited = console.options.update(max_width=10_000)
    return Measurement.get(console, unlimited, table).maximum
