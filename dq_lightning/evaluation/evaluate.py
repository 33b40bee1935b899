"""A model's scores on a split: generated, scored, and kept for runs that ask the same again."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor
from transformers import PreTrainedModel

from dq_lightning.evaluation.generation import TextGenerator, generate_split
from dq_lightning.evaluation.metric import Metric


@dataclass(frozen=True)
class Evaluation:
    """Scores in percent, the text generated for each row, and the seconds that took."""

    scores: dict[str, float]
    texts: list[str]
    seconds: float


def evaluate(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    references: Sequence[Sequence[str]],
    generator: TextGenerator,
    metric: Metric,
) -> Evaluation:
    """Generate for every batch and score against `references` (in row order)."""
    texts, seconds = generate_split(model, batches, generator)
    return Evaluation(metric.compute(texts, references), texts, seconds)


def cached_evaluation(
    identity: Sequence[Any], cache_dir: Path, compute: Callable[[], Evaluation]
) -> Evaluation:
    """`compute()`, or what it returned when `identity` (JSON values) was first asked for.

    Runs side by side wait for the one that computes. An unreadable entry is made anew.
    """
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
    file = cache_dir / "evaluations" / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        try:
            return Evaluation(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            result = compute()
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(result)), encoding="utf-8")
        partial.replace(file)
        return result
