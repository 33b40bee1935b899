"""Damaged and hostile packed files are refused in one sentence, before a byte of them is used."""

import hashlib
import json
import resource
import struct

import pytest
import torch
import zstandard
from safetensors.torch import load, save

from dq_lightning.artifacts.packed_container import MAGIC, enclose, opened
from dq_lightning.artifacts.packed_file import PackedFileError, read_packed, write_packed
from dq_lightning.artifacts.packed_student import pack_student


def refused(path, reason):
    """Reading says this, in one sentence that names the file, and allocates nothing large."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PackedFileError, match=reason) as caught:
        read_packed(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_and_a_folder(tmp_path):
    refused(tmp_path / "nowhere.dq", "there is no such file")
    refused(tmp_path, "there is no such file")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "does not begin as a packed file"),
        (b"PK\x03\x04 some zip file of someone else", "does not begin as a packed file"),
        (MAGIC, "ends within its header"),
    ],
)
def test_other_files(tmp_path, content, reason):
    (tmp_path / "model.dq").write_bytes(content)
    refused(tmp_path / "model.dq", reason)


@pytest.mark.parametrize(("version", "advice"), [(2, "update dq_lightning"), (0, "pack the")])
def test_other_versions(file, version, advice):
    content = bytearray(file.read_bytes())
    content[8:12] = struct.pack("<I", version)
    file.write_bytes(content)
    refused(file, f"version {version}.*{advice}")


def test_truncated_longer_and_damaged_files(file):
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    refused(file, "bytes instead of")
    file.write_bytes(content + b"\0")
    refused(file, "bytes instead of")
    file.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    refused(file, "checksum")
    file.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
    refused(file, "checksum")


def container(path, stored, raw_length, of_raw=bytes(32)):
    """A file whose outer layer is right whatever it holds."""
    lengths = struct.pack("<IQQ", 1, len(stored), raw_length)
    path.write_bytes(MAGIC + lengths + hashlib.sha256(stored).digest() + of_raw + stored)


@pytest.fixture(scope="module")
def bomb():
    """A zstd frame of a few KiB that holds 512 MiB of zeros."""
    compressor = zstandard.ZstdCompressor(level=3).compressobj(size=2**29)
    parts = [compressor.compress(bytes(2**20)) for _ in range(2**9)]
    return b"".join([*parts, compressor.flush()])


def test_zip_bombs(tmp_path, bomb):
    path = tmp_path / "model.dq"
    assert len(bomb) < 2**17
    container(path, bomb, 2**29)
    refused(path, "claim to hold")
    container(path, bomb, 2**20)
    refused(path, "another length")
    container(path, bomb, 2**63)
    refused(path, "claim to hold")


def test_frames_that_say_no_length_or_a_wrong_one(tmp_path):
    path, content = tmp_path / "model.dq", bytes(1000)
    stored = zstandard.ZstdCompressor(write_content_size=False).compress(content)
    container(path, stored, 1000, hashlib.sha256(content).digest())
    refused(path, "another length")
    stored = zstandard.ZstdCompressor().compress(content)
    container(path, stored, 999, hashlib.sha256(content).digest())
    refused(path, "another length")
    container(path, stored + stored, 1000, hashlib.sha256(content).digest())
    refused(path, "cannot be decompressed")
    container(path, b"no frame", 1000)
    refused(path, "cannot be decompressed")


def rewritten(file, change=None, change_data=None):
    """The file with other tensors or another metadata, and with checksums that fit."""
    raw = opened(file)
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    tensors, data = load(raw), json.loads(header["__metadata__"]["student"])
    if change:
        change(tensors)
    text = json.dumps(change_data(data) or data) if change_data else json.dumps(data)
    file.write_bytes(b"".join(enclose(save(tensors, {"student": text}))))


WEIGHT = "matrices/model.encoder.layers.0.fc1.weight"
POSITIONS = "matrices/model.encoder.embed_positions.weight"
SPEC = ("matrices", WEIGHT.removeprefix("matrices/"))
LINEAR = ("inputs", "model.encoder.layers.0.fc1")
FAR_ZERO = {
    f"{WEIGHT}/zero_point": torch.full((1, 1), -3e38), f"{WEIGHT}/scale": torch.full((1, 1), 2.0),
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop(f"{WEIGHT}/scale"), "has the parts"),
        (lambda t: t.update({f"{WEIGHT}/fields": t[f"{WEIGHT}/fields"][:-1]}), "scales of the sh"),
        (lambda t: t.update({f"{WEIGHT}/fields": t[f"{WEIGHT}/fields"].char()}), "no matrix"),
        (lambda t: t.update({f"{WEIGHT}/scale": t[f"{WEIGHT}/scale"].double()}), "float64"),
        (lambda t: t[f"{WEIGHT}/scale"].fill_(torch.inf), "infinite"),
        (lambda t: t[f"{POSITIONS}/scale"].fill_(0), "divides by 0"),
        (lambda t: t.update({f"{WEIGHT}/scale": torch.full((1, 1), 3e38)}), "beyond float32"),
        (lambda t: t.update({f"{POSITIONS}/scale": torch.full((1, 1), 1e-37)}), "beyond float32"),
        (lambda t: t.update(FAR_ZERO), "beyond float32"),
        (lambda t: t.update({"matrices/no.weight/fields": torch.zeros(1)}), "of no use"),
        (lambda t: t.update({"tensors/spare": torch.zeros(1)}), "stored weights have 'spare'"),
        (lambda t: t.update({"files/a.txt": torch.zeros(1)}), "not made of bytes"),
        (lambda t: t.update({"files/.a.txt": torch.zeros(1).byte()}), "no tokenizer needs"),
        (lambda t: t.update({"files/a.pkl": torch.zeros(1).byte()}), "no tokenizer needs"),
        (lambda t: t.update({f"tensors/{SPEC[1]}": torch.zeros(26, 20)}), "both as codes and as f"),
        (lambda t: t.pop("tensors/final_logits_bias"), "lack 'final_logits_bias'"),
    ],
)
def test_wrong_tensors(file, change, reason):
    rewritten(file, change)
    refused(file, reason)


def at(*keys):
    """A change of the metadata: the value of a path of keys becomes the last of them."""

    def change(data):
        for key in keys[:-2]:
            data = data[key]
        data[keys[-2]] = keys[-1]

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (at("family", "gpt"), "gpt is unknown"),
        (at("family", 5), "family is int instead of str"),
        (at("spare", 5), "must have the fields"),
        (lambda data: [data], "must have the fields"),
        (at("config", "d_model", 10**9), "more than"),
        (at("config", "d_model", 2**24), "asks for"),
        (at("config", "encoder_layers", 10**7), "and it has 2"),
        (at("config", "encoder_attention_heads", 0), "describes no model"),
        (at("config", "encoder_attention_heads", -4), "heads=-4, which is negative"),
        (at("config", "pad_token_id", -2), "pad_token_id=-2, which is negative"),
        (at("config", "activation_function", "os.system"), "describes no model"),
        (at("config", "attn_implementation", "someone/kernels"), "no bart has"),
        (at("config", "auto_map", {"AutoConfig": "evil.Config"}), "no bart has"),
        (at("config", "model_type", "t5"), "of the type 't5'"),
        (at("config", "max_position_embeddings", 2**24), "asks for"),
        (at("generation", "decoder_start_token_id", -1), "no token of its own"),
        (at("generation", "eos_token_id", [2, 99]), "no token of its own"),
        (at("generation", "bad_words_ids", [[5], [999999]]), "no token of its own"),
        (at("generation", "bad_words_ids", [5]), "no token of its own"),
        (at("generation", "suppress_tokens", [-1]), "no token of its own"),
        (at("uses", "lm_head.weight", "nothing"), "stored weights have|lack"),
        (at("uses", "spare.weight", "model.shared.weight"), "weights have 'spare.weight'"),
        (at("uses", "lm_head.weight", 3), "is int instead of str"),
        (at(*SPEC, "bits", 3), "has 3 bits"),
        (at(*SPEC, "bits", True), "is bool instead of int"),
        (at(*SPEC, "columns", 2**40), "bytes a row"),
        (at(*SPEC, "columns", 19), "codes behind its last column"),
        (at(*SPEC, "lowest", 10**6), "lowest code"),
        (at(*SPEC, "group_size", 0), "groups of 0"),
        (at(*SPEC, "group_size", 1), "scales of the shape"),
        (at(*LINEAR, "kind", "Popen"), "no quantizer 'Popen'"),
        (at(*LINEAR, "arguments", "bits", 10**15), "bits"),
        (at(*LINEAR, "arguments", "bits", 8.0), "cannot have"),
        (at(*LINEAR, "arguments", "shell", "rm"), "cannot have"),
        (at(*LINEAR, "arguments", {}), "cannot have"),
        (at("inputs", {}), "is packed, but its input is not described"),
        (at("inputs", "model.shared", None), "no linear layer"),
        (at("operands", "model.encoder", {}), "no attention has"),
        (at("operands", "model.encoder.layers.0.self_attn", "query", 4), "must have the fields"),
        (at("text", "max_source_length", 2.5), "text setting"),
        (at("text", "max_source_length", -5), "text setting max_source_length=-5"),
        (at("text", "max_source_length", 0), "text setting max_source_length=0"),
    ],
)
def test_wrong_metadata(file, change, reason):
    rewritten(file, change_data=change)
    refused(file, reason)


def test_weights_that_stand_for_each_other(file):
    def swap(data):
        names = [f"model.encoder.layers.0.self_attn.{part}_proj.weight" for part in "kv"]
        data["uses"].update(zip(names, reversed(names), strict=True))

    rewritten(file, change_data=swap)
    refused(file, "does not stand for itself")


def test_more_computed_positions_than_memory(student, tmp_path):
    path = tmp_path / "model.dq"
    write_packed(path, pack_student(*student("marian")))
    rewritten(path, change_data=at("config", "max_position_embeddings", 2**24))
    refused(path, "more than a model computes")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is no JSON"),
        ("NaN", "NaN is no number"),
        ("[" * 100_000, "is no JSON"),
        ("[" * 50 + "]" * 50, "nested more than"),
        ('{"a": 1e999}', "beyond 64 bits"),
        ('{"a": ' + "9" * 4000 + "}", "beyond 64 bits"),
    ],
)
def test_hostile_json(tmp_path, text, reason):
    path = tmp_path / "model.dq"
    path.write_bytes(b"".join(enclose(save({}, {"student": text}))))
    refused(path, reason)


@pytest.mark.parametrize(
    "header",
    [
        '{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4000000000]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],'
        '"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,4]}}',
        '{"__metadata__":{"other":"{}"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        "no json",
        "",
    ],
)
def test_hostile_safetensors(tmp_path, header):
    path = tmp_path / "model.dq"
    raw = struct.pack("<Q", len(header)) + header.encode() + bytes(4)
    path.write_bytes(b"".join(enclose(raw)))
    refused(path, "tensors cannot be read")
    path.write_bytes(b"".join(enclose(struct.pack("<Q", 2**63) + bytes(4))))
    refused(path, "tensors cannot be read")
