"""A packed file gives back what was written, bit for bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dq_lightning.artifacts.bit_fields import pack_fields
from dq_lightning.artifacts.packed_container import enclose, opened
from dq_lightning.artifacts.packed_file import read_packed, write_packed
from dq_lightning.artifacts.packed_student import pack_student

RECIPES = sorted(p.stem for p in (Path(__file__).parents[2] / "conf" / "quant").glob("*.yaml"))
TEXT = {"max_source_length": 12, "source_prefix": "say: ", "source_language": None}
FILES = {"tokenizer.json": b'{"a": "\xc3\xa9"}', "empty.txt": b""}


def same(one, other):
    """Whether two plain structures with tensors and dataclasses are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(other) and same(vars(one), vars(other))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("model", ["bart", "marian", "t5"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_round_trip_over_recipes_and_families(student, recipe, model, tmp_path):
    prepared, family = student(model, f"quant={recipe}")
    packed = pack_student(prepared, family, generation={"num_beams": 3}, text=TEXT, files=FILES)
    size = write_packed(tmp_path / "model.dq", packed)
    assert (tmp_path / "model.dq").stat().st_size == size
    assert same(packed, read_packed(tmp_path / "model.dq"))


@pytest.mark.parametrize("bits", ["1-1-8", "4-4-8", "8-8-8", "3-5-4", "2-2-32", "32-8-8"])
@pytest.mark.parametrize("head", ["tied", "fp", "int8"])
def test_round_trip_over_widths_and_heads(student, bits, head, tmp_path):
    recipe = "quant=tbt" if bits.startswith("1") else "quant=default"
    prepared, family = student("bart", recipe, f"quant.bits={bits}", f"quant.head={head}")
    packed = pack_student(prepared, family)
    write_packed(tmp_path / "model.dq", packed)
    assert same(packed, read_packed(tmp_path / "model.dq"))


def test_the_same_student_gives_the_same_bytes(packed, file, tmp_path):
    again = read_packed(file)
    write_packed(tmp_path / "again.dq", again)
    assert (tmp_path / "again.dq").read_bytes() == file.read_bytes()
    shuffled = replace(again, uses=dict(reversed(again.uses.items())))
    write_packed(tmp_path / "shuffled.dq", shuffled)
    assert (tmp_path / "shuffled.dq").read_bytes() == file.read_bytes()


def test_no_path_of_this_machine_is_in_the_file(student, tmp_path):
    prepared, family = student("bart")
    prepared.config._name_or_path = str(tmp_path)
    prepared.config.custom = "unknown to the class"
    write_packed(tmp_path / "model.dq", pack_student(prepared, family))
    raw = opened(tmp_path / "model.dq")
    assert str(tmp_path).encode() not in raw
    assert b"custom" not in raw


def test_a_full_disk_leaves_the_old_file(packed, file, monkeypatch):
    before = file.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_packed(file, packed)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: {"config": {**s.config, "d_model": 24}}, "asks for"),
        (lambda s: {"generation": {**s.generation, "pad_token_id": 53}}, "pad_token_id=53"),
        (lambda s: {"files": {"../evil.txt": b""}}, "no tokenizer needs"),
        (lambda s: {"text": {"max_source_length": "long"}}, "text setting"),
        (lambda s: {"tensors": {k: t * torch.nan for k, t in s.tensors.items()}}, "infinite"),
    ],
)
def test_what_could_not_be_read_is_not_written(packed, tmp_path, change, reason):
    with pytest.raises(ValueError, match=reason):
        write_packed(tmp_path / "model.dq", replace(packed, **change(packed)))
    assert not (tmp_path / "model.dq").exists()


@pytest.mark.parametrize("shares", [[0.01, 0.09, 0.84, 0.06], [0.02, 0.2, 0.55, 0.23]])
def test_codes_come_close_to_their_entropy(shares):
    torch.manual_seed(0)
    p = torch.tensor(shares)
    codes = torch.multinomial(p, 4_000_000, replacement=True).to(torch.uint8).view(-1, 1000)
    stored = sum(len(part) for part in enclose(pack_fields(codes, 2).numpy().tobytes()))
    entropy = -(p * p.log2()).sum().item() * codes.numel() / 8
    assert entropy < stored < 1.03 * entropy
