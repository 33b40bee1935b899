"""What the dashboard shows, as one JSON object; the page's scripts hold no number of their own."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import yaml

from dq_lightning.reporting.collect import Row, metric_names
from dq_lightning.reporting.costs import ON_DISK, main_size, timed_writer
from dq_lightning.reporting.curves import MAX_POINTS, curves
from dq_lightning.reporting.pareto import best_row, lower_is_better
from dq_lightning.reporting.predictions import predictions
from dq_lightning.reporting.published_points import published_points
from dq_lightning.reporting.run_folders import is_gone
from dq_lightning.reporting.tables import commands_of, facts, labels, teachers

Flat = dict[str, Any]

# What a cell's identity leaves out.
_NOT_THE_CELL = ("paths", "logger", "ckpt", "jobs", "sweep", "samples", "hydra")
# Of the sizes, what is no size of the student.
_NOT_THE_STUDENTS = ("teacher", "ratio", "stored_ratio")
# CSafeLoader reads a config in milliseconds; it is missing where PyYAML was built without libyaml.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def dashboard_data(rows: Sequence[Row], name: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Head, cells, curves, predictions, configs and published rows of a sweep."""
    configs = [_config(row) for row in rows]
    varied = _varied(configs)
    primary = next((row["primary_metric"] for row in rows if row["primary_metric"]), None)
    best = best_row(rows, primary)
    names = metric_names(rows)
    command = manifest.get("command")
    state = manifest.get("status")
    if state == "running" and is_gone(manifest):
        state = "interrupted"
    settings = _settings(rows, varied)
    return {
        "name": name,
        "commands": [str(command)] if command else commands_of(rows),
        "created": manifest.get("created"),
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "status": state,
        "live": state == "running" or any(row["status"] == "running" for row in rows),
        "facts": facts(rows) | _commits(rows),
        "primary": primary,
        "best": next((i for i, row in enumerate(rows) if row is best), None),
        "size": "stored" if main_size(rows) is ON_DISK else "student_nominal",
        "time": timed_writer(rows),
        "metrics": [{"name": n, "lower": lower_is_better(rows, n)} for n in names],
        "teachers": [_teacher(teacher, rows) for teacher in teachers(rows)],
        "published": published_points(rows, configs),
        "cells": [
            _cell(row, label, own)
            for row, label, own in zip(rows, labels(rows), settings, strict=True)
        ],
        "configs": varied,
        "curves": [curves(row["folder"]) for row in rows],
        "curve_points": MAX_POINTS,
        "predictions": predictions(
            [row["folder"] if row["status"] == "finished" else None for row in rows]
        ),
    }


def _cell(row: Row, label: str, settings: Mapping[str, str]) -> dict[str, Any]:
    known = [row[f"{site}_bits"] is not None for site in ("weight", "embedding", "activation")]
    stacks = (row["encoder_layers"], row["decoder_layers"])
    bits = (row[f"{site}_bits"] for site in ("weight", "embedding", "activation"))
    return {
        "label": label,
        "name": row["cell"],
        "bits": "-".join(map(str, bits)) if all(known) else None,
        "layers": "-".join(map(str, stacks)) if None not in stacks else None,
        "status": row["status"],
        "scores": {name: row.get(name) for name in row["metrics"]},
        "drop": {name: row.get(f"{name}_drop") for name in row["metrics"]},
        "sizes": {key: v for key, v in row["sizes"].items() if key not in _NOT_THE_STUDENTS},
        "ratio": row["ratio"],
        "stored_ratio": row["stored_ratio"],
        "packed": row["packed"],
        "seconds": row["times"]["seconds"],
        "seconds_an_item": row["times"]["student_seconds_an_item"],
        "packed_seconds_an_item": row["times"]["packed_seconds_an_item"],
        "speedup": row["times"]["packed_speedup"],
        "started": row["times"]["started"],
        "progress": _progress(row["progress"]),
        "error": row["error"],
        "run_dir": row["run_dir"],
        "overrides": row["overrides"],
        "settings": settings,
    }


def _progress(content: Mapping[str, Any]) -> dict[str, Any]:
    """What of progress.json is as agreed; another program's file may say anything."""
    counts = {k: v for k in ("step", "steps") if isinstance(v := content.get(k), int)}
    scores = content.get("validation")
    numbers = {
        str(name): value
        for name, value in (scores.items() if isinstance(scores, dict) else ())
        if isinstance(value, (int, float))
    }
    return {"stage": str(content.get("stage") or ""), **counts, "validation": numbers}


def _teacher(teacher: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Its seconds an item: the median over the cells that were measured against it."""
    times = [
        row["times"]["teacher_seconds_an_item"]
        for row in rows
        if row["teacher"] == teacher and row["times"]["teacher_seconds_an_item"]
    ]
    middle = sorted(times)[len(times) // 2] if times else None
    return {"scores": teacher["metrics"], "bytes": teacher["bytes"], "seconds_an_item": middle}


def _commits(rows: Sequence[Row]) -> dict[str, list[str]]:
    found = [
        f"{sha[:10]}{' (changed)' if row['environment'].get('git_dirty') else ''}"
        for row in rows
        if isinstance(sha := row["environment"].get("git_sha"), str)
    ]
    return {"commit": list(dict.fromkeys(found))} if found else {}


def _config(row: Row) -> Flat:
    """The run's resolved config with dotted keys; empty where it is missing or no YAML."""
    try:
        text = (row["folder"] / "config.yaml").read_text(encoding="utf-8")
        content = yaml.load(text, Loader=_LOADER)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    if not isinstance(content, dict):
        return {}
    return _flat({k: v for k, v in content.items() if k not in _NOT_THE_CELL})


def _flat(content: Mapping[Any, Any], prefix: str = "") -> Flat:
    found: Flat = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _varied(configs: Sequence[Flat]) -> list[dict[str, str] | None]:
    """Only the keys that differ between any two configs, as JSON text; None for no config."""
    read = [
        {key: json.dumps(value, ensure_ascii=False, default=str) for key, value in config.items()}
        for config in configs
    ]
    shown = [config for config in read if config]
    keys = sorted({key for config in shown for key in config})
    differ = [key for key in keys if len({config.get(key) for config in shown}) > 1]
    return [{k: c[k] for k in differ if k in c} if c else None for c in read]


def _settings(
    rows: Sequence[Row], varied: Sequence[Mapping[str, str] | None]
) -> list[dict[str, str]]:
    """What the sweep varies, cell by cell: its overrides, else the config keys that differ."""
    if any(row["overrides"] for row in rows):
        pairs = [dict(o.lstrip("+~").split("=", 1) for o in row["overrides"] if "=" in o)
                 for row in rows]  # fmt: skip
    else:
        pairs = [dict(config or {}) for config in varied]
    keys = list(dict.fromkeys(key for own in pairs for key in own))
    many = [key for key in keys if len({own.get(key) for own in pairs}) > 1]
    return [{key: own[key] for key in many if key in own} for own in pairs]
