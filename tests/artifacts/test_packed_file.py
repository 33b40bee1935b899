"""A packed file gives back what was written, bit for bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dq_lightning.artifacts.bit_fields import pack_fields
from dq_lightning.artifacts.packed_config import config_of
from dq_lightning.artifacts.packed_container import enclose, opened
from dq_lightning.artifacts.packed_file import read_packed, write_packed
from dq_lightning.artifacts.packed_student import pack_student
from dq_lightning.models.family import family_named, known_families
from dq_lightning.quantization.prepare import prepare

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


SMALL = {
    "vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_layers": 1,
    "num_decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "num_heads": 2, "d_kv": 6, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "d_ff": 12,
    "max_position_embeddings": 16, "pad_token_id": 0, "eos_token_id": 2, "forced_eos_token_id": 2,
    "decoder_start_token_id": 1,
}  # fmt: skip


def small(family, **more):
    """A family's model of the smallest sizes."""
    keys = family.model_class.config_class().to_dict()
    sizes = {key: size for key, size in (SMALL | more).items() if key in keys}
    return family.model_class(family.model_class.config_class(**sizes)).eval()


@pytest.mark.parametrize("family", known_families(), ids=lambda family: family.name)
def test_round_trip_over_all_families(family, recipe_of, tmp_path):
    model = small(family, feed_forward_proj="gated-gelu", scale_embedding=True)
    prepare(model, recipe_of(), family)
    packed = pack_student(model, family)
    write_packed(tmp_path / "model.dq", packed)
    again = read_packed(tmp_path / "model.dq")
    assert same(packed, again)
    config, rebuilt = model.config.to_dict(), config_of(family, again.config).to_dict()
    assert {key: config[key] for key in again.config} == {k: rebuilt[k] for k in again.config}


def test_an_untied_and_unscaled_t5_stays_so(recipe_of, tmp_path):
    family = family_named("t5")
    model = small(family)
    model.config.tie_word_embeddings = model.config.scale_decoder_outputs = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    prepare(model, recipe_of(), family)
    write_packed(tmp_path / "model.dq", pack_student(model, family))
    again = read_packed(tmp_path / "model.dq")
    assert again.uses["lm_head.weight"] == "lm_head.weight"
    config = config_of(family, again.config)
    assert not config.tie_word_embeddings
    assert not config.scale_decoder_outputs


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
