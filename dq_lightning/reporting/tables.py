"""``report.md`` for people and ``report.csv`` for programs, from the rows of a sweep."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dq_lightning.reporting.collect import Row, columns, metric_names, primary_metrics
from dq_lightning.reporting.costs import NOMINAL, ON_DISK, teacher_size
from dq_lightning.reporting.formats import MISSING, format_metric, format_share, markdown_table
from dq_lightning.reporting.timing import timing_section

_SIZES = (NOMINAL, ON_DISK)
_FACTS = ("device", "seed")


def to_csv(rows: Sequence[Row]) -> str:
    """Raw numbers, one line a cell, empty where nothing was measured."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns(rows), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def to_markdown(rows: Sequence[Row], name: str, command: str | None = None) -> str:
    """Title, one table with the teacher on top, where the figures come from, failed cells, times.

    ``command`` is the sweep's, where it is known; otherwise those of its runs are shown.
    """
    names, primary = metric_names(rows), primary_metrics(rows)
    header = ["cell", "status", *names, *(f"{n} drop" for n in names)]
    header += [title for size in _SIZES for title in size.header()]
    header += [*(f"packed {n}" for n in primary), "identical"]
    body = [*_teacher_lines(rows, names), *_cell_lines(rows, names)]
    counts = Counter(row["status"] for row in rows)
    summary = ", ".join(f"{count} {status}" for status, count in counts.items()) or "none yet"
    parts = [
        f"# Sweep {name}",
        f"Cells: {summary}. A positive drop is worse than the teacher.",
        markdown_table(header, body),
        "Nominal size counts parameters at their bits. On disk is the packed file, tokenizer and "
        "all; identical: the share of test items that it writes as the student does. Both ratios "
        "are against the teacher's float32 bytes.",
        *_provenance(rows, command),
        *_unpacked(rows),
        *_failures(rows),
        *timing_section(rows, labels(rows)),
    ]
    return "\n\n".join(parts) + "\n"


def sweep_name(sweep_dir: Path) -> str:
    """The folder's name, with the day before it where the name is only a time of day."""
    folder = sweep_dir.resolve()
    timed = re.fullmatch(r"\d\d-\d\d-\d\d", folder.name)
    return f"{folder.parent.name}/{folder.name}" if timed else folder.name


def labels(rows: Sequence[Row]) -> list[str]:
    """Cell names; several runs of one name are told apart by their overrides or run folders."""
    alike: dict[str, list[Row]] = {}
    for row in rows:
        alike.setdefault(row["cell"], []).append(row)
    return [_label(row, alike[row["cell"]]) for row in rows]


def _label(row: Row, alike: Sequence[Row]) -> str:
    if len(alike) == 1:
        return row["cell"]
    own = [o for o in row["overrides"] if any(o not in other["overrides"] for other in alike)]
    mark = " ".join(own)
    if not mark or sum(set(own) <= set(other["overrides"]) for other in alike) > 1:
        mark = Path(row["run_dir"]).name
    return f"{row['cell']} ({mark})"


def teachers(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The distinct teachers the cells were measured against: one, unless the sweep varies it."""
    distinct: list[dict[str, Any]] = []
    for row in rows:
        if row["teacher"]["metrics"] and row["teacher"] not in distinct:
            distinct.append(row["teacher"])
    return distinct


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
            *teacher_size(t["bytes"], _SIZES),
            *(MISSING for _ in (*primary_metrics(rows), "identical")),
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
            *(text for size in _SIZES for text in size.shown(row)),
            *(
                format_metric(row.get(f"packed_{n}"), _metric_column(rows, n))
                for n in primary_metrics(rows)
            ),
            format_share(row["packed_identical"]),
        ]
        for label, row in zip(labels(rows), rows, strict=True)
    ]


def _provenance(rows: Sequence[Row], command: str | None) -> list[str]:
    """One line of device, seed, steps and data size, one block of the commands, as far as known."""
    commands = [command] if command else commands_of(rows)
    line = " · ".join(f"{key}: {', '.join(values)}" for key, values in facts(rows).items())
    block = "```\n" + "\n".join(commands) + "\n```" if commands else ""
    return [part for part in (line, block) if part]


def facts(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Device, seed, steps, data size: the distinct values of all runs, as text."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for key, value in ({k: row["environment"].get(k) for k in _FACTS} | row["run"]).items():
            values = found.setdefault(key, [])
            if value is not None and _plain(value) not in values:
                values.append(_plain(value))
    return {key: values for key, values in found.items() if values and key != "command"}


def commands_of(rows: Iterable[Row]) -> list[str]:
    """The distinct commands of the runs."""
    all_of_them = (row["run"].get("command") or row["environment"].get("command") for row in rows)
    return list(dict.fromkeys(str(command) for command in all_of_them if command))


def packing_reasons(rows: Sequence[Row]) -> list[str]:
    """Why packed files or their numbers are missing: a line a reason, with its cells."""
    found: dict[str, list[str]] = {}
    for label, row in zip(labels(rows), rows, strict=True):
        if row["packed"]["reason"]:
            what = "file not run" if row["stored_bytes"] else "no packed file"
            found.setdefault(f"{what}, {row['packed']['reason']}", []).append(label)
    return [
        f"{', '.join(cells) if len(cells) <= 4 else f'{len(cells)} cells'}: {reason}"
        for reason, cells in found.items()
    ]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _unpacked(rows: Sequence[Row]) -> list[str]:
    lines = [f"- {line}" for line in packing_reasons(rows)]
    return ["## Not packed", "\n".join(lines)] if lines else []


def _failures(rows: Sequence[Row]) -> list[str]:
    lines = [
        f"- {label} ({row['status']}): {row['error']} [{row['run_dir']}/status.json]"
        for label, row in zip(labels(rows), rows, strict=True)
        if row["error"]
    ]
    return ["## Failed cells", "\n".join(lines)] if lines else []
