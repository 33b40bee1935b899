"""``timing.csv`` and the report's section on time: what differs from run to run."""

import csv
import io
from collections.abc import Sequence

from dq_lightning.reporting.collect import WRITERS, Row
from dq_lightning.reporting.formats import (
    format_ratio,
    format_seconds,
    format_speed,
    markdown_table,
)

TIMES = (
    "seconds",
    *(f"{who}_generation_seconds" for who in WRITERS),
    "timed_items",
    *(f"{who}_items_per_second" for who in WRITERS),
    "packed_speedup",
    "started",
    "ended",
)


def timing_csv(rows: Sequence[Row]) -> str:
    """Raw numbers, one line a cell: the run's seconds, and generation's for `timed_items`."""
    stream = io.StringIO()
    header = ["cell", "run_dir", *TIMES]
    writer = csv.DictWriter(stream, header, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, **row["times"], **_speeds(row)} for row in rows)
    return stream.getvalue()


def timing_section(rows: Sequence[Row], labels: Sequence[str]) -> list[str]:
    """Title, one table, and what the columns mean; nothing while no run has ended."""
    body = [
        [
            label,
            row["status"],
            format_seconds(row["times"]["seconds"]),
            *(format_seconds(row["times"][f"{who}_generation_seconds"]) for who in WRITERS),
            *(format_speed(_speeds(row)[f"{who}_items_per_second"]) for who in WRITERS),
            format_ratio(row["times"]["packed_speedup"]),
        ]
        for label, row in zip(labels, rows, strict=True)
        if row["times"]["seconds"] is not None
    ]
    if not body:
        return []
    header = ["cell", "status", "whole run", *(f"{who} generation" for who in WRITERS)]
    header += [*(f"{who} items/s" for who in WRITERS), "speed-up"]
    counts = sorted({row["times"]["timed_items"] for row in rows} - {None})
    items = f" Generation is timed on {', '.join(map(str, counts))} test items." if counts else ""
    note = "Clocks of the machine that ran the cell; they differ from run to run." + items
    if any(row["times"]["packed_generation_seconds"] is not None for row in rows):
        note += " Packed: the file on disk, run on the CPU; its speed-up is against the teacher."
    return ["## Time", note, markdown_table(header, body)]


def _speeds(row: Row) -> dict[str, float | None]:
    an_item = {who: row["times"][f"{who}_seconds_an_item"] for who in WRITERS}
    return {f"{who}_items_per_second": 1 / s if s else None for who, s in an_item.items()}
