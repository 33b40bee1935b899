"""Training curves of a run, from the logs of all its starts."""

import csv
import math
from pathlib import Path

MAX_POINTS = 300
_GROUPS = ("train/", "validation/", "lr")

Step = tuple[int, dict[str, float]]
Curve = dict[str, list[float]]


def curves(run_dir: Path) -> dict[str, Curve]:
    """Logged name -> ``steps`` and ``values``, at most `MAX_POINTS` of them.

    A resumed run's rows replace those of its first step and later of the starts before it.
    """
    merged: list[Step] = []
    for file in sorted((run_dir / "logs").glob("*/metrics.csv"), key=_start):
        rows = _rows(file)
        if rows:
            first = min(step for step, _ in rows)
            merged = [row for row in merged if row[0] < first] + rows
    names = dict.fromkeys(name for _, values in merged for name in values)
    return {name: _curve([(s, v[name]) for s, v in merged if name in v]) for name in names}


def _curve(points: list[tuple[int, float]]) -> Curve:
    points.sort(key=lambda point: point[0])
    stride = -(-len(points) // MAX_POINTS)  # the last point stays
    kept = points[::-1][:: max(stride, 1)][::-1]
    return {"steps": [s for s, _ in kept], "values": [float(f"{v:.5g}") for _, v in kept]}


def _rows(file: Path) -> list[Step]:
    """Steps with what was logged at them; the results that a run ends with stand at no step."""
    found: list[Step] = []
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                values = {k: v for k in row if k and k.startswith(_GROUPS)
                          and (v := _number(row[k])) is not None}  # fmt: skip
                step = _number(row.get("step"))
                if values and step is not None:
                    found.append((int(step), values))
    except (OSError, ValueError, csv.Error):
        pass  # what was read before the broken place still shows
    return found


def _number(text: object) -> float | None:
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _start(file: Path) -> tuple[int, str]:
    name = file.parent.name
    return (int(name) if name.isdigit() else -1), name
