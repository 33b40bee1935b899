"""The student of a run as a packed file with everything that its user needs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dq_lightning.artifacts.model_card import CARD, model_card
from dq_lightning.artifacts.packed_file import write_packed
from dq_lightning.artifacts.packed_student import PackedStudent, pack_student
from dq_lightning.artifacts.tokenizer_files import tokenizer_files
from dq_lightning.models.family import ModelFamily

PACKED = "model.dq"
"""Name of the file in a run directory."""
_TEXT = ("max_source_length", "source_prefix", "source_language", "target_language")


def pack_run_student(
    path: Path,
    student: PreTrainedModel,
    family: ModelFamily,
    tokenizer: PreTrainedTokenizerBase,
    *,
    generation: Mapping[str, Any],
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    positions_bits: int = 8,
) -> tuple[PackedStudent, int]:
    """Write a prepared student in float32, its tokenizer and its card; what was written, its bytes.

    generation: settings that the run tests with. config: the run's, as plain values. metrics: what
    `model_card` reads of metrics.json. Raises ValueError for a recipe that no packed file can hold.
    """
    packed = pack_student(
        student,
        family,
        generation=generation,
        text={key: config["data"].get(key) for key in _TEXT},
        files=tokenizer_files(tokenizer),
        positions_bits=positions_bits,
    )
    card = model_card(packed, config, metrics).encode()
    packed = replace(packed, files={**packed.files, CARD: card})
    return packed, write_packed(path, packed)
