"""What every engine gives: token ids for token ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dq_lightning.runtime.settings import GenerationSettings


@dataclass(frozen=True)
class Generation:
    """One generated text as token ids: no start token, no padding, EOS where it was produced.

    score: of a beam, its summed log-probability over length to the power of the length penalty
    (Hugging Face's `sequences_scores`); None without beams.
    """

    token_ids: list[int]
    score: float | None = None


class Engine(Protocol):
    """Runs one packed student; a source's result is the same whatever stands beside it."""

    @property
    def resident_bytes(self) -> int:
        """Bytes of the weights in memory."""
        ...

    def generate(
        self, sources: Sequence[Sequence[int]], settings: GenerationSettings
    ) -> list[Generation]:
        """`num_return_sequences` results for each source, in order."""
        ...

    def logits(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float32]]:
        """(target length, vocabulary) for each pair; targets are decoder inputs, start included."""
        ...
