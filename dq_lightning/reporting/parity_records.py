"""Committed records of runs as a table of what their packed files changed.

python -m dq_lightning.reporting.parity_records <record.json or folder> ...
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dq_lightning.reporting.formats import format_metric, markdown_table
from dq_lightning.reporting.records import Record, read_records


def parity_table(records: Sequence[Record]) -> str:
    """One row a record: search, bits of positions, bytes on disk, identical rows, both scores."""
    names = list(records[0]["metrics"]["student"])
    header = ["search", "positions", "bytes on disk", "identical"]
    header += [f"{name}: student / packed" for name in names]
    return markdown_table(header, [_row(record, names) for record in records])


def _row(record: Record, names: Sequence[str]) -> list[str]:
    metrics = record["metrics"]
    packed, student = metrics["packed"], metrics["student"]
    beams = record["config"]["data"]["generation"]["num_beams"]
    scores = [
        " / ".join(
            format_metric(found[name], [student[name]]) for found in (student, packed["scores"])
        )
        for name in names
    ]
    search = "greedy" if beams == 1 else f"beam {beams}"
    exact = f"{packed['bytes']:,}", f"{packed['identical']:.2%}"
    return [search, f"{packed['positions_bits']} bits", *exact, *scores]


def main() -> None:
    """Print the table of the records given."""
    parser = argparse.ArgumentParser("python -m dq_lightning.reporting.parity_records")
    parser.add_argument("paths", nargs="+", type=Path, metavar="record or folder")
    print(parity_table(read_records(parser.parse_args().paths)))


if __name__ == "__main__":
    main()
