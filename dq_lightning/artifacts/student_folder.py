"""The folder `student/`: a plain transformers folder, and the learned quantizers beside it."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from dq_lightning.quantization.state import (
    load_quantizer_state,
    quantizer_state,
    weights_alone,
)

QUANTIZERS = "quantizers.safetensors"


def save_student(student: PreTrainedModel, folder: Path) -> None:
    """Write the weights for `from_pretrained`, and what quantizers learned, where they did.

    model.safetensors has the unprepared model's keys, so it loads anywhere without a word;
    quantizers.safetensors is there only if the recipe has learned scales.
    """
    student.save_pretrained(folder, state_dict=weights_alone(student))
    state = {name: tensor.contiguous() for name, tensor in quantizer_state(student).items()}
    if state:
        save_file(state, folder / QUANTIZERS)


def load_quantizers(student: PreTrainedModel, folder: Path) -> None:
    """Give a student, loaded from the folder and prepared with its recipe, its learned scales."""
    file = folder / QUANTIZERS
    try:
        load_quantizer_state(student, load_file(file) if file.is_file() else {})
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
