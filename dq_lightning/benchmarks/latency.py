"""Generation time of a student and its opponents, cell by cell, measured side by side.

``python -m dq_lightning.benchmarks.latency`` prints it (see latency_command.py).
"""

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dq_lightning.benchmarks.contender import OURS, Contender, Sources

SLOW_SECONDS = 20.0
"""An opponent whose first run takes longer is measured once."""
WARM_UP_TOKENS = 4


@dataclass(frozen=True, order=True)
class Cell:
    """One setting at which all contenders are measured."""

    threads: int
    batch: int
    beams: int
    tokens: int

    def __str__(self) -> str:
        search = f"beam {self.beams}" if self.beams > 1 else "greedy"
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"batch {self.batch}, {search}, {self.tokens} tokens, {threads}"


HEADLINE = {"batch": 1, "beams": 4, "tokens": 60}
"""The cell whose ratios stand at the top of the record."""


def grid(
    threads: Sequence[int], batch: Sequence[int], beams: Sequence[int], tokens: Sequence[int]
) -> list[Cell]:
    """Every combination, by threads; in each, the headline comes first."""
    cells = [Cell(*values) for values in itertools.product(threads, batch, beams, tokens)]
    return sorted(cells, key=lambda c: (threads.index(c.threads), not is_headline(asdict(c))))


def is_headline(cell: Mapping[str, Any]) -> bool:
    """Whether a cell, as the record has it, is the headline's at any number of threads."""
    return HEADLINE.items() <= cell.items()


def measure(
    contenders: Mapping[str, Contender], sources: Sources, cell: Cell, repeats: int
) -> dict[str, list[float]]:
    """Seconds of every run of each contender, in turns, after a short run that warms it up.

    Taking turns lets a slow moment of the machine hit all alike. An opponent slower than
    SLOW_SECONDS runs once. Raises ValueError for a contender that gives another number of tokens.
    """
    sources = [sources[place % len(sources)] for place in range(cell.batch)]
    for contender in contenders.values():
        contender.generate(sources, cell.beams, min(WARM_UP_TOKENS, cell.tokens))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            if name != OURS and times[name] and times[name][0] > SLOW_SECONDS:
                continue
            began = time.perf_counter()
            texts = contender.generate(sources, cell.beams, cell.tokens)
            times[name].append(time.perf_counter() - began)
            _check(name, texts, cell)
    return times


def _check(name: str, texts: Sequence[Sequence[int]], cell: Cell) -> None:
    lengths = sorted({len(text) for text in texts})
    if len(texts) != cell.batch or lengths != [cell.tokens]:
        raise ValueError(
            f"{name} gave {len(texts)} texts of {lengths} tokens instead of {cell.batch} of "
            f"{cell.tokens}: its time cannot be compared."
        )


def cell_record(cell: Cell, times: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """A measured cell as plain data: medians, every run, new tokens a second, ratios."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        **asdict(cell),
        "contenders": {
            name: {
                "seconds": medians[name],
                "runs": list(times[name]),
                "tokens_per_second": cell.batch * cell.tokens / medians[name],
            }
            for name in times
        },
        "speedup": {name: s / medians[OURS] for name, s in medians.items() if name != OURS},
    }


if __name__ == "__main__":
    from dq_lightning.benchmarks.latency_command import main

    main()
