"""A packed file gives back what was written, and says in one sentence what is wrong with it."""

import pytest
import torch

from dq_lightning.artifacts.packed_file import read_packed, write_packed
from dq_lightning.artifacts.packed_student import pack_student
from tests.artifacts.test_packed_student import RECIPES, bart, marian, student, t5


def same(one, other):
    """Whether two plain structures with tensors and dataclasses are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(other) and same(vars(one), vars(other))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("model", [bart, marian, t5])
@pytest.mark.parametrize("recipe", RECIPES)
def test_round_trip(recipe, model, tmp_path):
    prepared, family = student(model, f"quant={recipe}")
    files = {"tokenizer.json": b'{"a": "\xc3\xa9"}', "empty": b""}
    text = {"max_source_length": 12, "source_prefix": "say: ", "source_language": None}
    packed = pack_student(prepared, family, generation={"num_beams": 3}, text=text, files=files)
    size = write_packed(tmp_path / "model.dq", packed)
    assert (tmp_path / "model.dq").stat().st_size == size
    assert same(packed, read_packed(tmp_path / "model.dq"))
