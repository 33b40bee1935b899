"""Generation time of several models on the same batches, measured side by side."""

import statistics
import time
from collections.abc import Mapping, Sequence

from torch import Tensor
from transformers import PreTrainedModel

from dq_lightning.evaluation.generation import TextGenerator


def generation_seconds(
    models: Mapping[str, PreTrainedModel],
    batches: Sequence[Mapping[str, Tensor]],
    generator: TextGenerator,
    repeats: int = 3,
) -> dict[str, float]:
    """Seconds each model takes for all `batches`: the median of `repeats`, models interleaved.

    Interleaving lets a slow moment of the machine hit all models alike. One batch warms each up.
    """
    for model in models.values():
        generator(model, batches[0])
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(repeats):
        for name, model in models.items():
            start = time.perf_counter()
            for batch in batches:
                generator(model, batch)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
