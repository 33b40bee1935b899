"""Sources of several lengths as one batch."""

import numpy as np
from numpy.typing import NDArray

from dq_lightning.benchmarks.contender import Sources


def padded(sources: Sources, pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids (sources, longest) filled up at the right, and the mask that is 1 on tokens."""
    longest = max(map(len, sources))
    rows = [[*source, *[pad] * (longest - len(source))] for source in sources]
    mask = [[1] * len(source) + [0] * (longest - len(source)) for source in sources]
    return np.array(rows, dtype=np.int64), np.array(mask, dtype=np.int64)
