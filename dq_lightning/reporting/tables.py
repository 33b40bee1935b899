"""``report.md`` for people and ``report.csv`` for programs, from the rows of a sweep."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.reporting.collect import Row, collect, columns, metric_names

MISSING = "-"


def write_report(sweep_dir: Path | str) -> list[Row]:
    """Writes ``report.md`` and ``report.csv`` into the sweep's folder, each in one step."""
    rows = collect(sweep_dir)
    folder = Artifact(sweep_dir)
    folder.write_text("report.csv", to_csv(rows))
    folder.write_text("report.md", to_markdown(rows, sweep_name(Path(sweep_dir))))
    return rows


def to_csv(rows: Sequence[Row]) -> str:
    """Raw numbers, one line a cell, empty where nothing was measured."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns(rows), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def to_markdown(rows: Sequence[Row], name: str) -> str:
    """Title, one table with the teacher on top, where the figures come from, failed cells."""
    names = metric_names(rows)
    header = ["cell", "status", *names, *(f"{n} drop" for n in names), "nominal size", "ratio"]
    body = [*_teacher_lines(rows, names), *_cell_lines(rows, names)]
    counts = Counter(row["status"] for row in rows)
    summary = ", ".join(f"{count} {status}" for status, count in counts.items()) or "none yet"
    parts = [
        f"# Sweep {name}",
        f"Cells: {summary}. A positive drop is worse than the teacher.",
        markdown_table(header, body),
        *_provenance(rows),
        *_failures(rows),
    ]
    return "\n\n".join(parts) + "\n"


def sweep_name(sweep_dir: Path) -> str:
    """The folder's name, with the day before it where the name is only a time of day."""
    folder = sweep_dir.resolve()
    timed = re.fullmatch(r"\d\d-\d\d-\d\d", folder.name)
    return f"{folder.parent.name}/{folder.name}" if timed else folder.name


def labels(rows: Sequence[Row]) -> list[str]:
    """Cell names; where several runs share one, the run folder tells them apart."""
    counts = Counter(row["cell"] for row in rows)
    return [
        row["cell"] if counts[row["cell"]] == 1 else f"{row['cell']} ({row['run_dir']})"
        for row in rows
    ]


def teachers(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The distinct teachers the cells were measured against: one, unless the sweep varies it."""
    distinct: list[dict[str, Any]] = []
    for row in rows:
        if row["teacher"]["metrics"] and row["teacher"] not in distinct:
            distinct.append(row["teacher"])
    return distinct


def format_metric(value: float | None, column: Iterable[float | None], sign: bool = False) -> str:
    """Two decimals for percentages, four for columns of fractions."""
    if value is None:
        return MISSING
    largest = max((abs(other) for other in column if other is not None), default=0.0)
    return f"{value:{'+' if sign else ''}.{2 if largest > 1 else 4}f}"


def format_bytes(size: float | None, exact: bool = True) -> str:
    """``1,234,567 B (1.18 MiB)``, or ``1.18 MiB`` alone."""
    if size is None:
        return MISSING
    scaled, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(scaled) < 1024:
            break
        scaled, unit = scaled / 1024, larger
    if unit == "B":
        return f"{size:,} B"
    short = f"{scaled:.2f} {unit}"
    return f"{size:,} B ({short})" if exact else short


def format_ratio(ratio: float | None) -> str:
    return MISSING if ratio is None else f"{ratio:.{2 if ratio < 10 else 1}f}x"


def _metric_column(rows: Sequence[Row], name: str) -> list[float | None]:
    """All values of a column, the teachers' included, so that they share their decimals."""
    return [row.get(name) for row in rows] + [t["metrics"].get(name) for t in teachers(rows)]


def _teacher_lines(rows: Sequence[Row], names: Sequence[str]) -> list[list[str]]:
    return [
        [
            "**teacher**",
            MISSING,
            *(format_metric(t["metrics"].get(n), _metric_column(rows, n)) for n in names),
            *(MISSING for _ in names),
            format_bytes(t["bytes"]),
            format_ratio(1.0),
        ]
        for t in teachers(rows)
    ]


def _cell_lines(rows: Sequence[Row], names: Sequence[str]) -> list[list[str]]:
    return [
        [
            label,
            row["status"],
            *(format_metric(row.get(n), _metric_column(rows, n)) for n in names),
            *(format_metric(row.get(f"{n}_drop"), _metric_column(rows, n), True) for n in names),
            format_bytes(row["nominal_bytes"]),
            format_ratio(row["ratio"]),
        ]
        for label, row in zip(labels(rows), rows, strict=True)
    ]


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [
        [str(item).replace("|", "\\|").replace("\n", " ") for item in line]
        for line in (header, *body)
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    # The first two columns are words, the rest are numbers.
    rule = ["-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    padded = [
        [
            c.ljust(w) if i < 2 else c.rjust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in (padded[0], rule, *padded[1:]))


def _provenance(rows: Sequence[Row]) -> list[str]:
    """One line of device, seed, steps and data size, one block of the commands, as far as known."""
    facts: dict[str, list[str]] = {}
    commands: list[str] = []
    for row in rows:
        known = {key: row["environment"].get(key) for key in ("device", "seed")} | row["run"]
        command = known.pop("command", None) or row["environment"].get("command")
        if command and command not in commands:
            commands.append(command)
        for key, value in known.items():
            values = facts.setdefault(key, [])
            if value is not None and _plain(value) not in values:
                values.append(_plain(value))
    line = " · ".join(f"{key}: {', '.join(values)}" for key, values in facts.items() if values)
    block = "```\n" + "\n".join(commands) + "\n```" if commands else ""
    return [part for part in (line, block) if part]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _failures(rows: Sequence[Row]) -> list[str]:
    lines = [
        f"- {label} ({row['status']}): {row['error']} [{row['run_dir']}/status.json]"
        for label, row in zip(labels(rows), rows, strict=True)
        if row["error"]
    ]
    return ["## Failed cells", "\n".join(lines)] if lines else []
