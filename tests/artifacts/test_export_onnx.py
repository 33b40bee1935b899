"""Exports to ONNX say what the dequantized student says, through onnxruntime itself."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from transformers import (
    BartConfig,
    M2M100Config,
    MarianConfig,
    MBartConfig,
    MT5Config,
    PegasusConfig,
    T5Config,
)

from dq_lightning.artifacts.dequantized import dequantized_model
from dq_lightning.artifacts.export_onnx import DECODER, ENCODER, WEIGHTS, export_onnx, main
from dq_lightning.artifacts.onnx_matrix import block_matrix
from dq_lightning.artifacts.packed_file import write_packed
from dq_lightning.artifacts.packed_matrix import pack_matrix
from dq_lightning.artifacts.packed_student import pack_student
from dq_lightning.benchmarks.contender_onnxruntime import OnnxModel
from dq_lightning.choices import build_recipe
from dq_lightning.models.family import family_of
from dq_lightning.quantization.per_group import PerGroupQuantizer
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.symmetric import SymmetricQuantizer

onnxruntime = pytest.importorskip("onnxruntime")

CONF = Path(__file__).parents[2] / "conf"
RECIPES = sorted(path.stem for path in (CONF / "quant").glob("*.yaml"))
SIZES = {
    "vocab_size": 53, "d_model": 20, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 26,
    "decoder_ffn_dim": 26, "max_position_embeddings": 32, "init_std": 0.3,
}  # fmt: skip
T5 = {
    "vocab_size": 53, "d_model": 20, "d_kv": 6, "d_ff": 26, "num_heads": 3, "num_layers": 2,
    "num_decoder_layers": 2, "decoder_start_token_id": 0, "initializer_factor": 1.0,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 10,
}  # fmt: skip
CONFIGS = {
    "bart": BartConfig(**SIZES, scale_embedding=True),
    "mbart": MBartConfig(**SIZES, decoder_start_token_id=2),
    "pegasus": PegasusConfig(**SIZES),
    "marian": MarianConfig(**SIZES, pad_token_id=52, decoder_start_token_id=52),
    "m2m100": M2M100Config(**SIZES, decoder_start_token_id=2),
    "t5": T5Config(**T5),
    "flan": T5Config(**T5, feed_forward_proj="gated-gelu"),
    "mt5": MT5Config(**T5),
}
PER_ROW = partial(SymmetricQuantizer, granularity="per_row")
ONE_ROUNDING = 1.8e-7  # of a scale that divides to its inverse, and of the product
IDS = np.array([[5, 9, 13, 20, 7, 33, 2], [6, 4, 2, 1, 1, 1, 1]])
MASK = np.array([[1] * 7, [1, 1, 1, 0, 0, 0, 0]])
TARGETS = np.array([[2, 4, 5, 6, 9], [2, 8, 9, 7, 4]])


def student(name, *overrides):
    torch.manual_seed(5)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        recipe = build_recipe(compose("train", list(overrides)).quant)
    config = CONFIGS[name]
    family = family_of(config)
    if name == "flan":  # its config says so, and its class another thing
        config.tie_word_embeddings = config.scale_decoder_outputs = False
    model = family.model_class(config).eval()
    prepare(model, recipe, family)
    return pack_student(model, family)


class Exported:
    """Logits by onnxruntime, the decoder run on `steps` tokens at a time."""

    def __init__(self, folder):
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(folder / name) for name in (ENCODER, DECODER)
        )

    def logits(self, steps):
        names = [output.name for output in self.encoder.get_outputs()]
        cross = self.encoder.run(None, {"input_ids": IDS, "attention_mask": MASK})
        given = dict(zip(names, cross, strict=True)) | {"attention_mask": MASK}
        rows, heads, _, size = cross[0].shape
        empty = np.zeros((rows, heads, 0, size), np.float32)
        past = {name.replace("cross", "past"): empty for name in names}
        logits = []
        for start in range(0, TARGETS.shape[1], steps):
            given["input_ids"] = TARGETS[:, start : start + steps]
            new, *present = self.decoder.run(None, given | past)
            past = dict(zip(past, present, strict=True))
            logits.append(new)
        return np.concatenate(logits, 1)


def expected_logits(packed):
    ids, mask, targets = map(torch.from_numpy, (IDS, MASK, TARGETS))
    model = dequantized_model(packed)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, decoder_input_ids=targets).logits.numpy()


def difference(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "bits"), [*((name, 2) for name in CONFIGS), ("bart", 4), ("bart", 8), ("t5", 8)]
)
def test_logits_of_every_family(name, bits, tmp_path):
    """Float activations: only the order of the sums differs. With a cache and without one."""
    packed = student(name, f"quant.bits={bits}")
    export_onnx(packed, tmp_path / "onnx", float_activations=True)
    exported, expected = Exported(tmp_path / "onnx"), expected_logits(packed)
    for steps in (TARGETS.shape[1], 2, 1):
        assert difference(exported.logits(steps), expected) < 3e-6


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_integer_activations_are_close(bits, tmp_path):
    """8 bits round each activation by up to 1/254 of its block's largest, 14 times in a row."""
    packed = student("bart", f"quant.bits={bits}")
    export_onnx(packed, tmp_path / "onnx")
    found = difference(Exported(tmp_path / "onnx").logits(2), expected_logits(packed))
    assert 1e-4 < found < 0.1


@pytest.mark.parametrize("head", ["fp", "int8"])
def test_heads_of_their_own(head, tmp_path):
    packed = student("bart", f"quant.head={head}")
    export_onnx(packed, tmp_path / "onnx", float_activations=True)
    assert difference(Exported(tmp_path / "onnx").logits(1), expected_logits(packed)) < 3e-6


@pytest.mark.parametrize("name", ["bart", "t5"])
@pytest.mark.parametrize("beams", [1, 3])
def test_generated_tokens(beams, name, tmp_path):
    packed = student(name, "quant.bits=4")
    export_onnx(packed, tmp_path / "onnx", float_activations=True)
    sources = [row[:length].tolist() for row, length in zip(IDS, MASK.sum(1), strict=True)]
    found = OnnxModel(tmp_path / "onnx", 1, packed.generation).generate(sources, beams, 9)
    length = {"min_new_tokens": 9, "max_new_tokens": 9, "forced_eos_token_id": None}
    expected = dequantized_model(packed).generate(
        torch.from_numpy(IDS), attention_mask=torch.from_numpy(MASK), num_beams=beams, **length
    )
    assert found == expected[:, 1:].tolist()
    assert name == "t5" or found[0] != found[1]


@pytest.mark.parametrize("recipe", [*RECIPES, "tbt quant.bits=1-1-8"])
def test_codes_and_scales_stay_what_they_are_or_are_refused(recipe):
    packed = student("bart", *f"quant={recipe}".split())
    for name, matrix in packed.matrices.items():
        try:
            found = block_matrix(name, matrix)
        except ValueError as error:
            assert "no whole numbers" in str(error) and recipe in ("lsq", "quantbart", "stretched")
            continue
        tolerance = ONE_ROUNDING if matrix.divides else 0
        torch.testing.assert_close(values(found), matrix.dequantize(), rtol=tolerance, atol=0)


def values(matrix):
    """What MatMulNBits multiplies by."""
    places = torch.arange(0, 8, matrix.bits, dtype=torch.uint8)
    fields = (torch.from_numpy(matrix.fields)[..., None] >> places) & (2**matrix.bits - 1)
    fields = fields.flatten(2).float()
    zero = 2 ** (matrix.bits - 1) if matrix.zero_point is None else None
    zero = torch.from_numpy(matrix.zero_point)[..., None] if zero is None else zero
    scaled = (fields - zero) * torch.from_numpy(matrix.scale)[..., None]
    return scaled.flatten(1)[:, : matrix.columns]


def test_the_end_is_never_generated(tmp_path):
    """Not even where it is what the student says all the time."""
    packed = student("bart")
    expected = dequantized_model(packed).generate(torch.tensor([[5, 9, 2]]), max_new_tokens=5)
    said = int(expected[0, 2])
    packed = replace(packed, generation={**packed.generation, "eos_token_id": said})
    export_onnx(packed, tmp_path / "onnx", float_activations=True)
    (found,) = OnnxModel(tmp_path / "onnx", 1, packed.generation).generate([[5, 9, 2]], 1, 5)
    assert said not in found


def test_groups_become_blocks():
    weight = torch.randn(6, 100)
    quantizer = PerGroupQuantizer(4, PER_ROW, 32)
    matrix = pack_matrix(quantizer.quantize(weight), 4, 32)
    found = block_matrix("fc1", matrix)
    assert found.block == 32
    torch.testing.assert_close(values(found), quantizer(weight), rtol=ONE_ROUNDING, atol=0)
    narrow = pack_matrix(PerGroupQuantizer(4, PER_ROW, 8).quantize(weight), 4, 8)
    with pytest.raises(ValueError, match="fc1 has groups of 8 columns"):
        block_matrix("fc1", narrow)


def test_more_than_one_block_a_row(tmp_path):
    """With scales of their own for the columns past the first 128."""
    weight = torch.randn(5, 300)
    quantizer = SymmetricQuantizer(8, "per_row")
    found = block_matrix("fc1", pack_matrix(quantizer.quantize(weight), 8))
    assert found.fields.shape == (5, 3, 128)
    torch.testing.assert_close(values(found), quantizer(weight), rtol=ONE_ROUNDING, atol=0)


def test_embedding_and_head_share_their_bytes(tmp_path):
    packed = student("bart")
    size = export_onnx(packed, tmp_path / "onnx")
    assert size == sum(file.stat().st_size for file in (tmp_path / "onnx").iterdir())
    table = packed.matrices[packed.uses["lm_head.weight"]]
    content = (tmp_path / "onnx" / WEIGHTS).read_bytes()
    assert content.count(block_matrix("", table).fields.tobytes()) == 1


def test_the_command(tmp_path, capsys):
    file, folder = tmp_path / "model.dq", tmp_path / "onnx"
    write_packed(file, student("bart"))
    main([str(tmp_path), "--output", str(folder), "--float-activations"])
    size = sum(part.stat().st_size for part in folder.iterdir())
    assert f"{folder}: {size:,} bytes ({file}: {file.stat().st_size:,})" in capsys.readouterr().out
    assert json.loads((folder / "student.json").read_text())["config"]["d_model"] == 20
    for arguments, message in (
        ([str(file), "--output", str(folder)], "exists already"),
        ([str(folder), "--output", str(tmp_path / "b")], "pack the run first"),
        ([str(tmp_path / "no.dq"), "--output", str(tmp_path / "b")], "give a packed file"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert message in capsys.readouterr().err
