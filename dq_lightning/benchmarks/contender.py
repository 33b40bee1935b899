"""One way to generate, as the latency benchmark runs it, and what the benchmark is about."""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

import dq_lightning.benchmarks
from dq_lightning.artifacts.optional_package import optional_package
from dq_lightning.artifacts.packed_student import PackedStudent
from dq_lightning.runtime.loading import EngineName

Sources = Sequence[Sequence[int]]
Generate = Callable[[Sources, int, int], list[list[int]]]

OURS = "dq_lightning"

FORCED_LENGTH: dict[str, Any] = {
    "do_sample": False,
    "length_penalty": 1.0,
    "early_stopping": False,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "bad_words_ids": None,
    "num_return_sequences": 1,
}
"""Beside the lengths: nothing that one contender could do and another not."""


@dataclass(frozen=True)
class Subject:
    """The student whose speed is asked for, and the model that Hugging Face runs beside it.

    file: the packed student. reference_name: what `reference` is. folder: for conversions.
    engine: of this project's runtime.
    """

    student: PackedStudent
    file: Path
    reference: PreTrainedModel
    reference_name: str
    folder: Path
    engine: EngineName = "auto"


@dataclass(frozen=True)
class Contender:
    """A loaded model at a number of threads.

    generate: (sources, beams, tokens) to the token ids of each source, exactly `tokens` of them:
    the end-of-sequence token is forbidden until then. load_seconds: from files to ready, where it
    loads from files. resident_bytes, stored_bytes: of its weights in memory and on disk; None where
    the runtime does not say.
    """

    description: str
    generate: Generate
    load_seconds: float | None
    resident_bytes: int | None
    stored_bytes: int | None


Loader = Callable[[Subject, int], Contender]


def opponents() -> list[str]:
    """Every contender but ours: the files contender_*.py of this folder."""
    names = (info.name for info in pkgutil.iter_modules(dq_lightning.benchmarks.__path__))
    found = (n.removeprefix("contender_") for n in names if n.startswith("contender_"))
    return [name for name in found if name != OURS]


def loader_of(name: str) -> Loader:
    """`load` of contender_<name>.py, or a ValueError that lists the known ones."""
    if name not in [OURS, *opponents()]:
        raise ValueError(f"--against {name} is unknown; write some of {','.join(opponents())}.")
    module = importlib.import_module(f"dq_lightning.benchmarks.contender_{name}")
    if hasattr(module, "PACKAGE"):
        optional_package(module.PACKAGE)
    return module.load
