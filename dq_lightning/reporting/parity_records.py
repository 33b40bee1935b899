"""Committed records of runs as a table of what their packed files changed.

python -m dq_lightning.reporting.parity_records <record.json or folder> ...
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dq_lightning.reporting.formats import MISSING, format_metric, markdown_table
from dq_lightning.reporting.record_files import Record, print_table
from dq_lightning.reporting.records import read_records


def parity_table(records: Sequence[Record]) -> str:
    """One row a record: search, bits of positions, bytes on disk, identical rows, both scores.

    The student comes first where the records are of several. Records without a packed file are
    left out; ValueError where none has one.
    """
    found = [record for record in records if (record["metrics"].get("packed") or {}).get("bytes")]
    if not found:
        raise ValueError(
            "None of these records has a packed file; give records of runs that wrote model.dq."
        )
    names = list(dict.fromkeys(name for r in found for name in r["metrics"]["student"]))
    header = ["search", "positions", "bytes on disk", "identical"]
    header += [f"{name}: student / packed" for name in names]
    body = [_row(record["metrics"], _search(record), names) for record in found]
    cells = [record["metrics"]["cell"]["name"] for record in found]
    if len(set(cells)) > 1:
        header = ["student", *header]
        body = [[cell, *row] for cell, row in zip(cells, body, strict=True)]
    return markdown_table(header, body)


def _search(record: Record) -> str:
    beams = record["config"]["data"]["generation"]["num_beams"]
    return "greedy" if beams == 1 else f"beam {beams}"


def _row(metrics: dict[str, Any], search: str, names: Sequence[str]) -> list[str]:
    packed, student = metrics["packed"], metrics["student"]
    scored = student, packed["scores"] or {}
    scores = [
        " / ".join(format_metric(found.get(name), [student.get(name)]) for found in scored)
        for name in names
    ]
    same = packed["identical"]
    exact = f"{packed['bytes']:,}", MISSING if same is None else f"{same:.2%}"
    return [search, f"{packed['positions_bits']} bits", *exact, *scores]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of the records given; 0, or 2 with one sentence on stderr."""
    parser = argparse.ArgumentParser("python -m dq_lightning.reporting.parity_records")
    parser.add_argument("paths", nargs="+", type=Path, metavar="record or folder")
    given = parser.parse_args(arguments)
    return print_table(lambda: parity_table(read_records(given.paths)))


if __name__ == "__main__":
    sys.exit(main())
