"""Committed records of ``dq_lightning.benchmarks.latency`` as one markdown table.

python -m dq_lightning.reporting.latency_records <record.json or folder> ...
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dq_lightning.reporting.formats import MISSING, format_ratio, markdown_table
from dq_lightning.reporting.record_files import Record, print_table, read_contents

OURS = "dq_lightning"
_COMMAND = "python -m dq_lightning.benchmarks.latency ... --json FILE"


def latency_table(paths: Iterable[Path]) -> str:
    """One row a student and cell: our new tokens a second, and how many times faster that is.

    A student is named by bits and layers, or by its file; the shape and the source's length stand
    beside them where the records differ in these. Raises ValueError for a path without a record.
    """
    records = [record for path in paths for record in read_contents(path, "cells", _COMMAND)]
    others = list(dict.fromkeys(name for r in records for name in r["contenders"] if name != OURS))
    students = _students([record["settings"] for record in records])
    rows = [
        ((student, *_order(cell)), _row(student, cell, others))
        for student, record in zip(students, records, strict=True)
        for cell in record["cells"]
    ]
    header = ["student", "cell", "tokens/s", *(f"times {name}" for name in others)]
    return markdown_table(header, [row for _, row in sorted(rows)])


def _students(found: Sequence[Record]) -> list[str]:
    """Each record's student, so that two that differ have two names."""
    models = [settings.get("shape") or _file(settings, found) for settings in found]
    lengths = [settings.get("source_length") for settings in found]
    students: list[str] = []
    for settings, model, length in zip(found, models, lengths, strict=True):
        cell = [settings["bits"], settings["layers"]] if "bits" in settings else []
        named = [model] if model and (len(set(models)) > 1 or not cell) else []
        source = [f"source {length}"] if len(set(lengths)) > 1 else []
        students.append(" ".join([*named, *cell, *source]))
    return students


def _file(settings: Record, found: Sequence[Record]) -> str:
    """A packed file's folder and name; of several with the same, the start of the digest too."""
    name = _folder_and_name(settings)
    digests = {other.get("sha256") for other in found if _folder_and_name(other) == name}
    return f"{name} {settings['sha256'][:8]}" if len(digests) > 1 else name


def _folder_and_name(settings: Record) -> str:
    return "/".join(Path(settings.get("model", "")).parts[-2:])


def _order(cell: dict[str, Any]) -> tuple[int, ...]:
    return tuple(cell[key] for key in ("batch", "beams", "tokens", "threads"))


def _row(student: str, cell: dict[str, Any], others: Sequence[str]) -> list[str]:
    search = "greedy" if cell["beams"] == 1 else f"beam {cell['beams']}"
    threads = f"{cell['threads']} thread{'' if cell['threads'] == 1 else 's'}"
    name = f"batch {cell['batch']}, {search}, {cell['tokens']} tokens, {threads}"
    speed = cell["contenders"][OURS]["tokens_per_second"]
    ratios = (cell["speedup"].get(other) for other in others)
    shown = [MISSING if ratio is None else format_ratio(ratio) for ratio in ratios]
    return [student, name, f"{speed:,.0f}", *shown]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of the records given; 0, or 2 with one sentence on stderr."""
    parser = argparse.ArgumentParser("python -m dq_lightning.reporting.latency_records")
    parser.add_argument("paths", nargs="+", type=Path, metavar="record or folder")
    given = parser.parse_args(arguments)
    return print_table(lambda: latency_table(given.paths))


if __name__ == "__main__":
    sys.exit(main())
