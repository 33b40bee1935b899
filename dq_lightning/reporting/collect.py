"""Rows of a sweep's table, read from its run directories alone; needs no torch."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dq_lightning.reporting.run_folders import (
    RunFolder,
    overrides,
    read_json,
    run_folders,
    run_state,
)

Row = dict[str, Any]

# Who writes the test items against the clock; packed is the student's file on disk.
WRITERS = ("teacher", "student", "packed")
CELL_COLUMNS = (
    "weight_bits",
    "embedding_bits",
    "activation_bits",
    "encoder_layers",
    "decoder_layers",
)


def collect(sweep_dir: Path | str) -> list[Row]:
    """One row per cell of the sweep's ``sweep.json``, or per run below ``sweep_dir``, sorted.

    Files that are missing, cut off or not JSON never raise: the row then says ``unreadable`` and
    why. Besides the table's ``columns`` a row holds ``primary_metric`` and the dicts ``teacher``
    (metrics, ``bytes``, ``parameters``), ``packed`` (its file's scores), ``run`` and
    ``environment`` for the report's head, ``times`` for ``timing.csv``, ``progress`` while it runs,
    ``overrides`` and its ``folder``.
    """
    return sorted((_row(folder) for folder in run_folders(Path(sweep_dir))), key=_natural_order)


def columns(rows: Iterable[Row]) -> list[str]:
    """The columns of ``report.csv``: cell, status, metrics, drops, sizes, packed file, the run.

    Only what is the same in every run of the same config: times stand in ``timing.csv``.
    """
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
        "stored_bytes",
        "stored_ratio",
        "packed_identical",
        *(f"packed_{name}" for name in primary_metrics(rows)),
        "run_dir",
        "error",
    ]


def primary_metrics(rows: Iterable[Row]) -> list[str]:
    """Those of all rows, in their order: one, unless the sweep varies the data."""
    return list(dict.fromkeys(row["primary_metric"] for row in rows if row["primary_metric"]))


def metric_names(rows: Iterable[Row]) -> list[str]:
    """Every metric of any row, in the order they were measured, primary metrics first."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    primary = primary_metrics(rows)
    return sorted(names, key=lambda name: name not in primary)


def _row(folder: RunFolder) -> Row:
    status, state, error = run_state(folder)
    environment, _ = read_json(folder.path / "environment.json")
    metrics: dict[str, Any] = {}
    if state == "finished":  # what lies beside any other status is of an earlier run in this folder
        metrics, metrics_error = read_json(folder.path / "metrics.json")
        if not _dict(metrics, "student"):
            state = "unreadable"
            error = metrics_error or "metrics.json holds no student metrics"
    cell = _dict(metrics, "cell") or _dict(status, "cell") or _cell_of_name(folder.entry)
    student, drop = _numbers(_dict(metrics, "student")), _numbers(_dict(metrics, "drop"))
    sizes, parameters = _numbers(_dict(metrics, "bytes")), _dict(metrics, "parameters")
    teacher = {"bytes": sizes.get("teacher"), "parameters": parameters.get("teacher")}
    packed, primary = _packed(metrics), metrics.get("primary_metric")
    primary = primary if isinstance(primary, str) else None
    return {
        "cell": str(cell.get("name") or folder.shown),
        **{name: cell.get(name) for name in CELL_COLUMNS},
        "status": state,
        **student,
        **{f"{name}_drop": value for name, value in drop.items()},
        "nominal_bytes": sizes.get("student_nominal"),
        "ratio": sizes.get("ratio"),
        "stored_bytes": sizes.get("stored"),
        "stored_ratio": sizes.get("stored_ratio"),
        "packed_identical": packed["identical"],
        **({f"packed_{primary}": packed["scores"].get(primary)} if primary else {}),
        "run_dir": folder.shown,
        "error": _last_line(error),
        "metrics": list(student),
        "primary_metric": primary,
        "teacher": teacher | {"metrics": _numbers(_dict(metrics, "teacher"))},
        "sizes": sizes,
        "packed": packed,
        "times": _times(status, metrics),
        "progress": read_json(folder.path / "progress.json")[0] if state == "running" else {},
        "run": _dict(metrics, "run"),
        "environment": environment if state != "queued" else {},
        "overrides": overrides(folder),
        "folder": folder.path,
    }


def _cell_of_name(entry: dict[str, Any]) -> dict[str, Any]:
    """What a queued cell's name says of its columns."""
    name = str(entry.get("name") or "")
    found = re.fullmatch(r"(\d+)-(\d+)-(\d+) (\d+)-(\d+)", name)
    values = map(int, found.groups()) if found else ()
    return {"name": name, **dict(zip(CELL_COLUMNS, values, strict=False))}


def _packed(metrics: dict[str, Any]) -> dict[str, Any]:
    """The packed file's scores, their drops against the student's, and what is missing why."""
    packed = _dict(metrics, "packed")
    engine, reason = packed.get("engine"), packed.get("reason")
    return {
        "scores": _numbers(_dict(packed, "scores")),
        "drop": _numbers(_dict(packed, "drop")),
        "identical": _numbers(packed).get("identical"),
        "engine": None if engine is None else str(engine),
        "reason": " ".join(str(reason or "").split()) or None,
    }


def _times(status: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """Clocks, which differ from run to run; generation's an item too, and against the teacher's."""
    generation = _numbers(_dict(metrics, "generation_seconds"))
    items = metrics.get("timed_items")
    count = items if isinstance(items, int) and items > 0 else None
    times: dict[str, Any] = {name: status.get(name) for name in ("started", "ended", "seconds")}
    teacher = generation.get("teacher")
    for name in WRITERS:
        seconds = generation.get(name)
        times[f"{name}_generation_seconds"] = seconds
        times[f"{name}_seconds_an_item"] = (
            None if seconds is None or count is None else seconds / count
        )
        times[f"{name}_speedup"] = teacher / seconds if teacher and seconds else None
    return times | {"timed_items": count}


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
