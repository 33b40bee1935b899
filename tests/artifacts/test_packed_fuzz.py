"""Thousands of damaged packed files: each is refused in one sentence, or is a whole student."""

import copy
import json
import os
import random
import resource

import pytest
import torch
from safetensors.torch import load, save

from dq_lightning.artifacts.packed_container import enclose, opened
from dq_lightning.artifacts.packed_file import PackedFileError, read_packed, write_packed
from dq_lightning.artifacts.packed_student import pack_student

SEED = int(os.environ.get("DQ_LIGHTNING_FUZZ_SEED", "0"))
VALUES = [
    None, True, False, -1, 0, 1, 2, 3, 7, 8, 64, 255, 2**16, 2**24, 2**31, 2**40, 2**62, 10**30,
    0.5, -0.0, 1e-300, 1e300, "", "a", "../a", "fields", "model.shared.weight", "gelu", "per_row",
    "SymmetricQuantizer", "LsqQuantizer", "bart", "t5", [], [0], [[1]], {}, {"bits": 8}, {"a": {}},
]  # fmt: skip
TYPES = [torch.uint8, torch.int8, torch.int64, torch.float16, torch.float32, torch.float64,
         torch.bfloat16, torch.bool]  # fmt: skip


@pytest.fixture(scope="module", params=["bart", "t5"])
def file(request, student, tmp_path_factory):
    recipe = "quant=tbt" if request.param == "t5" else "quant=default"  # tbt: learned activations
    prepared, family = student(request.param, recipe)
    packed = pack_student(prepared, family, text={"max_source_length": 9}, files={"a.txt": b"bc"})
    path = tmp_path_factory.mktemp("fuzz") / f"{request.param}.dq"
    write_packed(path, packed)
    return path


def check(path, content):
    """Whether the file with this content is refused; one that is not must be usable."""
    target = path.with_suffix(".damaged")
    target.write_bytes(content)
    try:
        student = read_packed(target)
    except PackedFileError as error:
        assert "\n" not in str(error)
        return True
    for key in student.uses:
        student.weight(key)
    described = [
        *student.inputs.values(),
        *(d for o in student.operands.values() for d in o.values()),
    ]
    for quantizer in described:
        if quantizer is not None:
            quantizer.build()
    return False


def damaged_bytes(content, rng):
    """A few bytes flipped, cut out, put in, or written over."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        start = rng.randrange(len(content)) if rng.random() < 0.7 else rng.randrange(100)
        length = min(rng.choice([1, 1, 2, 4, 8, 100]), len(content) - start)
        kind = rng.randrange(5)
        if kind == 0:
            content[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del content[start : start + length]
        elif kind == 2:
            content[start:start] = rng.randbytes(length)
        elif kind == 3:
            content[start : start + length] = rng.choice([b"\0", b"\xff"]) * length
        else:
            del content[start:]
        if len(content) < 100:
            break
    return bytes(content)


def damage_json(data, rng):
    """One value, key or entry somewhere in the tree becomes another."""
    places = []

    def walk(node):
        keys = node if isinstance(node, dict) else range(len(node))
        for key in keys:
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    walk(data)
    node, key = rng.choice(places)
    other_node, other_key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        node[key] = copy.deepcopy(rng.choice(VALUES))
    elif kind == 1:
        del node[key]
    elif kind == 2 and isinstance(node, dict):
        node[rng.choice(["", "a", "bits", "__class__", *node])] = node.pop(key)
    elif kind == 3 and isinstance(node, dict):
        node[rng.choice(["", "spare", "model_type", "num_labels"])] = 5
    elif kind == 4 and type(node[key]) is int:
        node[key] += rng.choice([-1, 1, -8, 8, 2**20])
    else:
        node[key] = copy.deepcopy(other_node[other_key])  # a mere reference may close a circle


def damage_tensors(tensors, rng):
    """One tensor goes, gets another name, shape, type or values, or one more comes."""
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    kind = rng.randrange(8)
    if kind == 0:
        del tensors[name]
    elif kind == 1:
        tensors[rng.choice(["", "a", name + "x", "/" + name, *sorted(tensors)])] = tensors.pop(name)
    elif kind == 2:
        tensors[name] = tensor.flatten()[: rng.randrange(tensor.numel() + 1)].clone()
    elif kind == 3:
        tensors[name] = tensor.T.contiguous() if tensor.dim() == 2 else tensor[None]
    elif kind == 4:
        tensors[name] = tensor.to(rng.choice(TYPES))
    elif kind == 5 and tensor.numel():
        value = rng.choice([torch.inf, -torch.inf, torch.nan, 0, -1, 1e30, 255])
        flat = tensor.flatten().float()
        flat[rng.randrange(flat.numel())] = value
        tensors[name] = flat.view(tensor.shape).to(tensor.dtype)
    elif kind == 6:
        shape = [rng.choice([0, 1, 2, 20, 53]) for _ in range(rng.randrange(4))]
        tensors[name] = torch.zeros(shape)
    else:
        tensors[f"{rng.choice(['files', 'inputs/a', 'matrices/b', 'tensors'])}/c"] = tensor.clone()


def damaged_content(raw, rng):
    """The file with one thing wrong inside and checksums that fit."""
    length = int.from_bytes(raw[:8], "little")
    if rng.random() < 0.15:  # the safetensors header itself
        return enclosed(damaged_bytes(raw[: 8 + length], rng) + raw[8 + length :])
    tensors = load(raw)
    data = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["student"])
    if rng.random() < 0.6:
        damage_json(data, rng)
    else:
        damage_tensors(tensors, rng)
    return enclosed(save(tensors, {"student": json.dumps(data)}))


def enclosed(raw):
    return b"".join(enclose(raw))


def fuzz(file, stored, inside):
    """So many files with damaged stored bytes, so many damaged inside."""
    rng = random.Random(f"{SEED} {file.name}")
    content, raw = file.read_bytes(), opened(file)
    assert not check(file, content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(stored):
        damaged = damaged_bytes(content, rng)
        assert damaged == content or check(file, damaged)
    refused = sum(check(file, damaged_content(raw, rng)) for _ in range(inside))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    return refused / inside


def test_fuzz(file):
    assert fuzz(file, stored=4200, inside=800) > 0.5


@pytest.mark.slow
def test_fuzz_long(file):
    assert fuzz(file, stored=30_000, inside=20_000) > 0.5
