"""Published rows beside what this project measured, matched by data, method, bits and layers.

The published side is a study's ``published.json``; the measured side is read from records and run
directories alone, so no measured number is ever typed by hand.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dq_lightning.artifacts.publish import record

Content = dict[str, Any]
FULL_PRECISION = "32-32-32"


@dataclass(frozen=True)
class Measured:
    """The content of a record, and the file or run directory that it was read from."""

    where: str
    content: Content


@dataclass(frozen=True)
class Entry:
    """A published row; what was measured for it, number by number, and by which record."""

    published: Content
    numbers: dict[str, float | None]
    measured: Measured | None = None


def read_measured(paths: Sequence[Path]) -> tuple[list[Measured], list[str]]:
    """Records (JSON files) and finished runs at or below `paths`; one line for each unreadable.

    Files and folders that are neither are passed over, and so are runs that did not finish.
    """
    found: list[Measured] = []
    unreadable: list[str] = []
    for path in paths:
        statuses = sorted(path.rglob("status.json")) if path.is_dir() else []
        runs = [status.parent for status in statuses]
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        inside = [file for file in files if not any(run in file.parents for run in runs)]
        for place in (*inside, *runs):
            try:
                content = _content(place)
            except (OSError, ValueError, KeyError) as error:
                unreadable.append(f"{place} is left out: {error}")
                continue
            if content is not None:
                found.append(Measured(place.as_posix(), content))
    return found, unreadable


def _content(place: Path) -> Content | None:
    if place.is_dir():
        status = json.loads((place / "status.json").read_text(encoding="utf-8"))
        return record(place) if status.get("status") == "finished" else None
    content = json.loads(place.read_text(encoding="utf-8"))
    known = isinstance(content, dict) and ("metrics" in content or "bytes" in content)
    return content if known else None


def score_entries(published: Content, measured: Iterable[Measured]) -> list[Entry]:
    """One entry a published row of scores and matching run; without numbers where none ran."""
    runs = [run for run in measured if "metrics" in run.content]
    entries: list[Entry] = []
    for row in published["scores"]:
        if cell(row)["bits"] == FULL_PRECISION:
            found = [(run, run.content["metrics"]["teacher"]) for run in runs
                     if _is_teacher(row, run, published)][:1]  # fmt: skip
        else:
            found = [(run, run.content["metrics"]["student"]) for run in runs
                     if is_row(row, run, published)]  # fmt: skip
        entries += [Entry(row, {k: v.get(k) for k in row["scores"]}, run) for run, v in found]
        entries += [] if found else [Entry(row, {})]
    return entries


def size_entries(published: Content, measured: Iterable[Measured]) -> list[Entry]:
    """One entry a published size; MiB are the reference code's rule plus the saved buffers."""
    entries: list[Entry] = []
    for row in published["sizes"]:
        whole = published["models"][row["model"]]["bytes"]
        found = [size for size in measured if "metrics" not in size.content
                 and size.content["bytes"]["teacher"] == whole
                 and _cell_of(size.content["cell"]) == cell(row)]  # fmt: skip
        for size in found[:1]:
            count = size.content["bytes"]
            value = whole / count["nominal"]
            if row["quantity"] == "mib":
                value = (count["reference_rule"] + count["saved_buffers"]) / 2**20
            entries.append(Entry(row, {row["quantity"]: value}, size))
        entries += [] if found else [Entry(row, {})]
    return entries


def unmatched(published: Content, measured: Iterable[Measured]) -> list[Measured]:
    """The runs that are the student of no published row."""
    rows: list[Content] = published["scores"]
    runs = [run for run in measured if "metrics" in run.content]
    return [run for run in runs if not any(is_row(row, run, published) for row in rows)]


def is_row(row: Content, run: Measured, published: Content) -> bool:
    """Whether the run's student is what the published row is about."""
    recipe: Content | None = published["methods"][row["method"]]["recipe"]
    config = run.content["config"]
    return (
        bool(recipe)
        and _is_on(row["data"], run, published)
        and _cell_of(run.content["metrics"]["cell"]) == cell(row)
        and all(_value(config, key) == value for key, value in (recipe or {}).items())
    )


def cell(row: Content) -> Content:
    """Bits in W-E-A order, whatever order the source prints, and layers."""
    bits: str = row["bits"]
    if row["bits_order"] == "E-W-A":
        embedding, weight, activation = bits.split("-")
        bits = f"{weight}-{embedding}-{activation}"
    return {"bits": bits, "layers": row["layers"]}


def _cell_of(measured: Content) -> Content:
    bits = (measured[f"{site}_bits"] for site in ("weight", "embedding", "activation"))
    layers = (measured[f"{stack}_layers"] for stack in ("encoder", "decoder"))
    return {"bits": "-".join(map(str, bits)), "layers": "-".join(map(str, layers))}


def _is_teacher(row: Content, run: Measured, published: Content) -> bool:
    same = _value(run.content["config"], "teacher.path") == row["teacher"]
    return same and _is_on(row["data"], run, published) and bool(run.content["metrics"]["teacher"])


def _is_on(data: str, run: Measured, published: Content) -> bool:
    return _value(run.content["config"], "data.name") in published["data"][data]["names"]


def _value(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config
