"""The cells of a latency benchmark, one after the other, each kept as soon as it is measured."""

import gc
import sys
from collections.abc import Sequence
from typing import Any

from dq_lightning.benchmarks.contender import OURS, Contender, Sources, Subject, loader_of
from dq_lightning.benchmarks.latency import Cell, measure
from dq_lightning.benchmarks.latency_record import LatencyRecord


def run(
    subject: Subject,
    sources: Sources,
    cells: Sequence[Cell],
    against: Sequence[str],
    repeats: int,
    record: LatencyRecord,
) -> None:
    """Measure the cells that the record does not have; a line of progress for each on stderr."""
    missing = [cell for cell in cells if not record.has(cell)]
    for threads in dict.fromkeys(cell.threads for cell in missing):
        contenders: dict[str, Contender] = {}
        for name in [OURS, *against]:
            _say(f"loading {name} for {threads} thread(s)")
            contenders[name] = loader_of(name)(subject, threads)
            record.describe(name, threads, contenders[name])
        for cell in missing:
            if cell.threads == threads:
                record.add(cell, measure(contenders, sources, cell, repeats))
                _say(f"[{cells.index(cell) + 1}/{len(cells)}] {_line(cell, record)}")
        del contenders
        gc.collect()  # a runtime's threads and memory go before the next ones come


def _line(cell: Cell, record: LatencyRecord) -> str:
    measured: dict[str, Any] = record.content["cells"][-1]
    parts = [f"{name} {one['seconds']:.3f} s" for name, one in measured["contenders"].items()]
    return f"{cell}: {', '.join(parts)}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
