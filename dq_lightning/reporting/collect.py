"""Rows of a sweep's table, read from its run directories alone; needs no torch."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

CELL_COLUMNS = (
    "weight_bits",
    "embedding_bits",
    "activation_bits",
    "encoder_layers",
    "decoder_layers",
)


def collect(sweep_dir: Path | str) -> list[Row]:
    """One row per run (a folder with a ``status.json``) below ``sweep_dir``, sorted by cell.

    Files that are missing, cut off or not JSON never raise: the row then says ``unreadable`` and
    why. Besides the table's ``columns`` a row holds ``primary_metric`` and the dicts ``teacher``
    (metrics, ``bytes``, ``parameters``), ``run`` and ``environment`` for the report's head.
    """
    root = Path(sweep_dir)
    return sorted((_row(folder, root) for folder in _run_folders(root)), key=_natural_order)


def columns(rows: Iterable[Row]) -> list[str]:
    """The columns of ``report.csv``: cell, status, metrics, drops, sizes, then the run itself."""
    rows = list(rows)
    names = metric_names(rows)
    return [
        "cell",
        *CELL_COLUMNS,
        "status",
        *names,
        *(f"{name}_drop" for name in names),
        "nominal_bytes",
        "ratio",
        "seconds",
        "run_dir",
        "error",
    ]


def metric_names(rows: Iterable[Row]) -> list[str]:
    """Every metric of any row, in the order they were measured, primary metrics first."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    primary = {row["primary_metric"] for row in rows}
    return sorted(names, key=lambda name: name not in primary)


def _run_folders(root: Path) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(root):
        if "status.json" in files:
            subfolders.clear()  # checkpoints, logs and the student hold no other run
            yield Path(folder)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]


def _row(folder: Path, root: Path) -> Row:
    status, status_error = _read(folder / "status.json")
    environment, _ = _read(folder / "environment.json")
    state = status.get("status", "unreadable")
    error = status.get("error") or status_error
    metrics: dict[str, Any] = {}
    if state == "finished":  # what lies beside any other status is of an earlier run in this folder
        metrics, metrics_error = _read(folder / "metrics.json")
        if not _dict(metrics, "student"):
            state = "unreadable"
            error = metrics_error or "metrics.json holds no student metrics"
    run_dir = folder.relative_to(root).as_posix()
    cell = _dict(metrics, "cell") or _dict(status, "cell")
    student, drop = _numbers(_dict(metrics, "student")), _numbers(_dict(metrics, "drop"))
    sizes, parameters = _dict(metrics, "bytes"), _dict(metrics, "parameters")
    teacher = {"bytes": sizes.get("teacher"), "parameters": parameters.get("teacher")}
    return {
        "cell": cell.get("name") or run_dir,
        **{name: cell.get(name) for name in CELL_COLUMNS},
        "status": state,
        **student,
        **{f"{name}_drop": value for name, value in drop.items()},
        "nominal_bytes": sizes.get("student_nominal"),
        "ratio": sizes.get("ratio"),
        "seconds": status.get("seconds"),
        "run_dir": run_dir,
        "error": _last_line(error),
        "metrics": list(student),
        "primary_metric": metrics.get("primary_metric"),
        "teacher": teacher | {"metrics": _numbers(_dict(metrics, "teacher"))},
        "run": _dict(metrics, "run"),
        "environment": environment,
    }


def _read(path: Path) -> tuple[dict[str, Any], str | None]:
    """A JSON object, or an empty one and the reason in one line."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, f"{path.name} is missing"
    except (OSError, ValueError) as error:  # ValueError: not JSON, or not UTF-8
        return {}, f"{path.name}: {error}"
    if not isinstance(content, dict):
        return {}, f"{path.name} holds no JSON object"
    return content, None


def _dict(content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _numbers(values: dict[str, Any]) -> dict[str, float | None]:
    """Only what fits a column: numbers, and null for a metric that came out as NaN."""
    return {
        name: value
        for name, value in values.items()
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
    }


def _last_line(text: Any) -> str | None:
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    return lines[-1] if lines else None


def _natural_order(row: Row) -> tuple[Any, ...]:
    """Bits and layers as numbers (8 before 16), full precision after every width, unknown last."""

    def rank(value: Any) -> tuple[int, float]:
        if isinstance(value, (int, float)):
            return 0, value
        if isinstance(value, str) and value.isdigit():
            return 0, int(value)
        return (1, 0.0) if row["weight_bits"] is not None or value is not None else (2, 0.0)

    names = [
        (not part.isdigit(), int(part) if part.isdigit() else 0, part)
        for part in re.split(r"(\d+)", f"{row['cell']} {row['run_dir']}")
    ]
    return *(rank(row[name]) for name in CELL_COLUMNS), names
