"""A study's committed records as one markdown table, for its README.

python -m dq_lightning.reporting.records <record or folder of records> ...
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dq_lightning.reporting.tables import format_metric, format_ratio

Record = dict[str, Any]


def read_records(paths: Sequence[Path]) -> list[Record]:
    """The records in the order given; a folder's are sorted by bits and layers."""
    records: list[Record] = []
    for path in paths:
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        records += sorted(found, key=lambda record: _order(record["metrics"]["cell"]))
    return records


def records_table(records: Sequence[Record]) -> str:
    """One row a record: cell, steps, metrics with their drops, nominal bytes, ratio, minutes."""
    names = list(records[0]["metrics"]["student"])
    names.sort(key=lambda name: name != records[0]["metrics"]["primary_metric"])
    head = ["cell", "steps", *(f"{n}{d}" for n in names for d in ("", " drop")), "nominal bytes"]
    rows = [[*head, "ratio", "minutes"], ["---"] * (len(head) + 2)]
    rows += [_row(record, names) for record in records]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(record: Record, names: Sequence[str]) -> list[str]:
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
        f"{record['seconds'] / 60:.1f}",
    ]


def _order(cell: dict[str, Any]) -> list[int]:
    return [value for value in cell.values() if isinstance(value, int)]


if __name__ == "__main__":
    print(records_table(read_records([Path(argument) for argument in sys.argv[1:]])))
