"""Committed records of ``dq_lightning.benchmarks.latency`` as one markdown table.

python -m dq_lightning.reporting.latency_records <record.json or folder> ...
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dq_lightning.reporting.formats import MISSING, format_ratio, markdown_table

OURS = "dq_lightning"


def latency_table(paths: Iterable[Path]) -> str:
    """One row a student and cell: our new tokens a second, and how many times faster that is."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in _files(paths)]
    others = list(dict.fromkeys(name for r in records for name in r["contenders"] if name != OURS))
    rows = [
        ((_student(record), *_order(cell)), _row(_student(record), cell, others))
        for record in records
        for cell in record["cells"]
    ]
    header = ["student", "cell", "tokens/s", *(f"times {name}" for name in others)]
    return markdown_table(header, [row for _, row in sorted(rows)])


def _files(paths: Iterable[Path]) -> list[Path]:
    return [f for path in paths for f in (sorted(path.glob("*.json")) if path.is_dir() else [path])]


def _student(record: dict[str, Any]) -> str:
    settings = record["settings"]
    return f"{settings['bits']} {settings['layers']}"


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


def main() -> None:
    """Print the table of the records given."""
    parser = argparse.ArgumentParser("python -m dq_lightning.reporting.latency_records")
    parser.add_argument("paths", nargs="+", type=Path, metavar="record or folder")
    print(latency_table(parser.parse_args().paths))


if __name__ == "__main__":
    main()
