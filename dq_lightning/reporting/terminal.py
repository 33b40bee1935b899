"""The tables a run and a sweep end with, in the terminal or in a log file."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dq_lightning.reporting.collect import Row, metric_names
from dq_lightning.reporting.formats import MISSING, format_bytes, format_metric, format_ratio
from dq_lightning.reporting.tables import labels, teachers

STATUS_STYLES = {
    "finished": "green",
    "failed": "red",
    "unreadable": "red",
    "running": "yellow",
    "interrupted": "yellow",
    "queued": "dim",
}


def print_run_table(metrics: Mapping[str, Any], console: Console | None = None) -> None:
    """Teacher and student side by side: metrics, parameters, nominal bytes, ratio, speed."""
    cell = metrics.get("cell") or {}
    table = Table(box=box.SIMPLE_HEAD, title=f"Student {cell.get('name', '')}".strip())
    table.add_column("")
    for name in ("teacher", "student", "drop"):
        table.add_column(name, justify="right")
    primary = metrics.get("primary_metric")
    for name in sorted(metrics["student"], key=lambda name: name != primary):
        values = metrics["teacher"].get(name), metrics["student"][name]
        drop = (metrics.get("drop") or {}).get(name)
        shown = [format_metric(value, values) for value in values]
        style = "bold" if name == primary else ""
        table.add_row(name, *shown, format_metric(drop, values, sign=True), style=style)
    for line in _cost_lines(metrics):
        table.add_row(*line)
    print_table(table, console)


def print_sweep_table(rows: Sequence[Row], console: Console | None = None) -> None:
    """One line a cell below its teacher; as many metrics as fit the width, primary one first."""
    console = console or Console()
    names = metric_names(rows)
    table = _sweep_table(rows, names)
    while console.is_terminal and len(names) > 1 and table_width(table, console) > console.width:
        names = names[:-1]
        table = _sweep_table(rows, names)
    print_table(table, console)
    for label, row in zip(labels(rows), rows, strict=True):
        if row["error"]:
            line = f"{label} {row['status']}: {row['error']}"
            console.print(Text(line, style="red"), soft_wrap=True)


def _sweep_table(rows: Sequence[Row], names: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("cell")
    table.add_column("status")
    for name in names:
        table.add_column(name, justify="right")
        table.add_column("drop", justify="right")
    table.add_column("size", justify="right")
    table.add_column("ratio", justify="right")
    column = {
        name: [*(row.get(name) for row in rows), *(t["metrics"].get(name) for t in teachers(rows))]
        for name in names
    }
    for teacher in teachers(rows):
        values = teacher["metrics"]
        shown = [[format_metric(values.get(name), column[name]), ""] for name in names]
        size = format_bytes(teacher["bytes"], exact=False)
        table.add_row("teacher", "", *sum(shown, []), size, format_ratio(1.0), style="bold")
    for label, row in zip(labels(rows), rows, strict=True):
        shown = [
            [
                format_metric(row.get(name), column[name]),
                format_metric(row.get(f"{name}_drop"), column[name], sign=True),
            ]
            for name in names
        ]
        status = Text(row["status"], style=STATUS_STYLES.get(row["status"], ""))
        size = format_bytes(row["nominal_bytes"], exact=False)
        table.add_row(Text(label), status, *sum(shown, []), size, format_ratio(row["ratio"]))
    return table


def _cost_lines(metrics: Mapping[str, Any]) -> list[list[str]]:
    parameters = metrics.get("parameters") or {}
    sizes = metrics.get("bytes") or {}
    seconds = metrics.get("generation_seconds") or {}
    items = metrics.get("timed_items")
    return [
        ["parameters", _count(parameters.get("teacher")), _count(parameters.get("student"))],
        [
            "nominal bytes",
            format_bytes(sizes.get("teacher")),
            format_bytes(sizes.get("student_nominal")),
        ],
        ["ratio", format_ratio(1.0), format_ratio(sizes.get("ratio"))],
        [
            "generation",
            _speed(seconds.get("teacher"), items),
            _speed(seconds.get("student"), items),
        ],
    ]


def _count(number: int | None) -> str:
    return MISSING if number is None else f"{number:,}"


def _speed(seconds: float | None, items: int | None) -> str:
    if seconds is None:
        return MISSING
    if not items or seconds <= 0:
        return f"{seconds:.2f} s"
    return f"{seconds:.2f} s ({items / seconds:,.0f} items/s)"


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
