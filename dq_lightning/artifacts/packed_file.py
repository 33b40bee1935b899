"""One file that holds a packed student: `model.dq`. packed_format.md beside this describes it."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from dq_lightning.artifacts.atomic import write_file
from dq_lightning.artifacts.packed_check import check_packed
from dq_lightning.artifacts.packed_container import enclose, opened
from dq_lightning.artifacts.packed_schema import from_tensors, to_tensors
from dq_lightning.artifacts.packed_student import PackedStudent

_METADATA = "student"


class PackedFileError(ValueError):
    """A file that cannot be read as a packed student, and why."""


def write_packed(path: Path | str, student: PackedStudent) -> int:
    """Write the file, whole or not at all, and return its bytes: the same for the same student.

    Raises ValueError for a student that could not be read back, such as one with a weight of NaN.
    """
    check_packed(student)
    tensors, metadata = to_tensors(student)
    chunks = enclose(save(tensors, {_METADATA: metadata}))
    write_file(Path(path), chunks)
    return sum(len(chunk) for chunk in chunks)


def read_packed(path: Path | str) -> PackedStudent:
    """The student in a file; PackedFileError, one sentence, for anything that is not quite one."""
    try:
        student = from_tensors(*_tensors(opened(Path(path))))
        check_packed(student)
        return student
    except (ValueError, OSError) as error:
        raise PackedFileError(f"{path} cannot be read as a packed student: {error}.") from error


def _tensors(blob: bytes) -> tuple[dict[str, Tensor], str]:
    """The tensors and the metadata of a safetensors blob."""
    try:
        tensors = load(blob)
        header: dict[str, Any] = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
        return tensors, header["__metadata__"][_METADATA]
    except Exception as error:  # safetensors and torch raise many types here
        raise ValueError(f"its tensors cannot be read ({error})") from error
