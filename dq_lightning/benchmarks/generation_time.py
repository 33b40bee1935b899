"""Generation time of several models on the same batches, measured side by side."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

Batch = Mapping[str, Tensor]


def generation_seconds(
    writers: Mapping[str, Callable[[Batch], object]], batches: Sequence[Batch], repeats: int = 3
) -> dict[str, float]:
    """Seconds each writer takes for all `batches`: the median of `repeats`, writers interleaved.

    Interleaving lets a slow moment of the machine hit all alike. One batch warms each up.
    """
    for write in writers.values():
        write(batches[0])
    times: dict[str, list[float]] = {name: [] for name in writers}
    for _ in range(repeats):
        for name, write in writers.items():
            start = time.perf_counter()
            for batch in batches:
                write(batch)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
