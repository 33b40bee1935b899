"""A study's committed records as markdown tables, for its README.

python -m dq_lightning.reporting.records <record or folder of records> ...     # a row a record
python -m dq_lightning.reporting.records --recipes <folder of recipe folders>  # means over seeds
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from dq_lightning.reporting.formats import MISSING, format_metric, format_ratio, format_speed
from dq_lightning.reporting.record_files import Record, print_table, read_contents

_COMMAND = "python -m dq_lightning.artifacts.publish RUN_DIR --record FILE"
ON_DISK = "bytes on disk (ratio)"
SPEED = "items/s: packed / teacher"


def read_records(paths: Sequence[Path]) -> list[Record]:
    """The records in the order given; a folder's are sorted by bits and layers.

    Raises ValueError for a path that holds no record of a run.
    """
    records: list[Record] = []
    for path in paths:
        found = read_contents(path, "metrics", _COMMAND)
        records += sorted(found, key=lambda record: _order(record["metrics"]["cell"]))
    return records


def records_table(records: Sequence[Record]) -> str:
    """One row a record: cell, steps, metrics with their drops, nominal bytes, ratio, minutes.

    Bytes on disk and the packed file's speed stand before the minutes where any record has them.
    """
    names = list(records[0]["metrics"]["student"])
    names.sort(key=lambda name: name != records[0]["metrics"]["primary_metric"])
    head = ["cell", "steps", *(f"{n}{d}" for n in names for d in ("", " drop")), "nominal bytes"]
    packed = _packed_columns(records)
    rows = [[*head, "ratio", *packed, "minutes"], ["---"] * (len(head) + len(packed) + 2)]
    rows += [_row(record, names, packed) for record in records]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _packed_columns(records: Sequence[Record]) -> list[str]:
    """The titles of what any of the records knows of its packed file."""
    found = [record["metrics"] for record in records]
    on_disk = any("stored" in metrics["bytes"] for metrics in found)
    timed = any("packed" in metrics.get("generation_seconds", {}) for metrics in found)
    return [ON_DISK] * on_disk + [SPEED] * timed


def _packed_cells(records: Sequence[Record], columns: Sequence[str]) -> list[str]:
    """The mean over the records that have a packed file: a row's own, or those of its seeds."""
    shown = dict.fromkeys(columns, MISSING)
    found: list[dict[str, Any]] = [record["metrics"] for record in records]
    sizes = [m["bytes"] for m in found if "stored" in m["bytes"]]
    if sizes:
        size, ratio = (mean(s[key] for s in sizes) for key in ("stored", "stored_ratio"))
        shown[ON_DISK] = f"{round(size):,} ({format_ratio(ratio)})"
    times = [m for m in found if "packed" in m.get("generation_seconds", {})]
    if times:
        shown[SPEED] = " / ".join(format_speed(_speed(times, w)) for w in ("packed", "teacher"))
    return list(shown.values())


def _speed(times: Sequence[dict[str, Any]], who: str) -> float | None:
    """Mean items a second; None where nobody of that name was timed (a run without a teacher)."""
    known = [m for m in times if who in m["generation_seconds"]]
    return mean(m["timed_items"] / m["generation_seconds"][who] for m in known) if known else None


def _row(record: Record, names: Sequence[str], packed: Sequence[str]) -> list[str]:
    metrics = record["metrics"]
    scores: list[str] = []
    for name in names:
        value, drop = metrics["student"][name], metrics["drop"].get(name)
        scores += [format_metric(value, [value]), format_metric(drop, [value], sign=True)]
    size = metrics["bytes"]
    return [
        metrics["cell"]["name"],
        f"{metrics['run']['steps']:,}",
        *scores,
        f"{size['student_nominal']:,}",
        format_ratio(size["ratio"]),
        *_packed_cells([record], packed),
        f"{record['seconds'] / 60:.1f}",
    ]


def _order(cell: dict[str, Any]) -> list[int]:
    return [value for value in cell.values() if isinstance(value, int)]


def read_recipes(folder: Path) -> dict[str, list[Record]]:
    """Recipe (the name of a sub-folder) -> its records; those of several seeds side by side.

    Raises ValueError for a folder without sub-folders, and for one of them without records.
    """
    folders = [path for path in sorted(folder.glob("*")) if path.is_dir()]
    if not folders:
        raise ValueError(f"{folder} holds no folder of a recipe's records; give one that does.")
    return {path.name: read_records([path]) for path in folders}


def recipes_table(recipes: dict[str, list[Record]]) -> str:
    """One row a cell and recipe, the smallest loss first: drops as mean and spread over seeds.

    The spread is the standard deviation (n - 1); each run's drop of the primary metric follows,
    then means of bytes on disk and of speed where any record has them.
    Raises ValueError when runs of one cell differ in steps, data or teacher.
    """
    first = next(iter(recipes.values()))[0]["metrics"]
    primary = first["primary_metric"]
    names = sorted(first["drop"], key=lambda name: name != primary)
    head = ["cell", "recipe", *(f"{name} drop" for name in names), f"{primary} drop by seed"]
    packed = _packed_columns([record for records in recipes.values() for record in records])
    rows = [[*head, "steps", "nominal bytes", *packed], ["---"] * (len(head) + len(packed) + 2)]
    for cell in sorted({r["metrics"]["cell"]["name"] for rs in recipes.values() for r in rs})[::-1]:
        found = {
            recipe: [r for r in records if r["metrics"]["cell"]["name"] == cell]
            for recipe, records in recipes.items()
        }
        _check_comparable(cell, [record for records in found.values() for record in records])
        present = [(recipe, records) for recipe, records in found.items() if records]
        present.sort(key=lambda item: mean(drops(item[1], primary)))
        rows += [
            [*_recipe_row(cell, recipe, records, names), *_packed_cells(records, packed)]
            for recipe, records in present
        ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def drops(records: Sequence[Record], metric: str) -> list[float]:
    """The records' drops of one metric, by seed."""
    by_seed = sorted(records, key=lambda record: record["metrics"]["run"]["seed"])
    return [record["metrics"]["drop"][metric] for record in by_seed]


def _recipe_row(
    cell: str, recipe: str, records: Sequence[Record], names: Sequence[str]
) -> list[str]:
    values = drops(records, names[0])
    seeds = sorted(record["metrics"]["run"]["seed"] for record in records)
    by_seed = ", ".join(f"{s}: {value:+.2f}" for s, value in zip(seeds, values, strict=True))
    metrics = records[0]["metrics"]
    spread = [_mean_and_spread(drops(records, name)) for name in names]
    steps, size = metrics["run"]["steps"], metrics["bytes"]["student_nominal"]
    return [cell, recipe, *spread, by_seed, f"{steps:,}", f"{size:,}"]


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):+.2f}{spread}"


def _check_comparable(cell: str, records: Sequence[Record]) -> None:
    found: list[dict[str, Any]] = [record["metrics"] for record in records]
    for name, values in (
        ("steps", {str(metrics["run"]["steps"]) for metrics in found}),
        ("test rows", {str(metrics["run"]["test_rows"]) for metrics in found}),
        ("teacher scores", {json.dumps(metrics["teacher"]) for metrics in found}),
    ):
        if len(values) > 1:
            raise ValueError(
                f"The records of {cell} differ in {name} ({', '.join(sorted(values))}); compare "
                "runs of equal steps, data and teacher."
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table that the arguments ask for; 0, or 2 with one sentence on stderr."""
    parser = argparse.ArgumentParser("python -m dq_lightning.reporting.records")
    parser.add_argument("paths", nargs="+", type=Path, metavar="record or folder")
    parser.add_argument(
        "--recipes", action="store_true", help="one folder of recipe folders: means over seeds"
    )
    given = parser.parse_args(arguments)
    if given.recipes:
        return print_table(lambda: recipes_table(read_recipes(given.paths[0])))
    return print_table(lambda: records_table(read_records(given.paths)))


if __name__ == "__main__":
    sys.exit(main())
