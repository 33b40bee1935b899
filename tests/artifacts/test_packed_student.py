"""Packing changes no weight: laws over every recipe and several models."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dq_lightning.artifacts.bit_fields import WIDTHS, pack_fields, unpack_fields
from dq_lightning.artifacts.packed_matrix import narrowest
from dq_lightning.artifacts.packed_student import pack_student
from dq_lightning.quantization.description import QuantizerDescription, describe
from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.modules import FakeQuantizedEmbedding, FakeQuantizedLinear
from dq_lightning.quantization.state import weights_alone

CONF = Path(__file__).parents[2] / "conf"
RECIPES = sorted(path.stem for path in (CONF / "quant").glob("*.yaml"))


def quantized_weights(model):
    """What the layers multiply by, by state-dict key."""
    found = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, (FakeQuantizedLinear, FakeQuantizedEmbedding)):
            quantizer = module.weight_quantizer
            weight = module.weight.detach()
            found[f"{name}.weight"] = weight if quantizer is None else quantizer(weight)
    return found


@pytest.mark.parametrize("model", ["bart", "marian", "t5"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipes_weights_come_back_bit_for_bit(student, recipe, model):
    prepared, family = student(model, f"quant={recipe}")
    packed = pack_student(prepared, family, positions_bits=32)
    expected = {**weights_alone(prepared), **quantized_weights(prepared)}
    assert {key for key in expected if not family.computes(key)} == packed.uses.keys()
    for key in packed.uses:
        torch.testing.assert_close(packed.weight(key), expected[key].float(), rtol=0, atol=0)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("head", ["tied", "fp", "int8"])
def test_widths_and_heads(student, bits, head):
    prepared, family = student("bart", f"quant.bits={bits}", f"quant.head={head}")
    packed = pack_student(prepared, family)
    width = next(width for width in WIDTHS if width >= bits)
    assert packed.matrices["model.encoder.layers.0.fc1.weight"].bits == width
    assert packed.uses["model.decoder.embed_tokens.weight"] == "model.shared.weight"
    own = {"tied": "model.shared.weight", "fp": "lm_head.weight", "int8": "lm_head.weight"}
    assert packed.uses["lm_head.weight"] == own[head]
    assert ("lm_head.weight" in packed.tensors) == (head == "fp")
    expected = {**weights_alone(prepared), **quantized_weights(prepared)}["lm_head.weight"]
    torch.testing.assert_close(packed.weight("lm_head.weight"), expected, rtol=0, atol=0)


def test_one_bit_takes_one_bit_and_two_take_two(student):
    prepared, family = student("bart", "quant=tbt", "quant.bits=1-1-8")
    packed = pack_student(prepared, family)
    assert {m.bits for key, m in packed.matrices.items() if "positions" not in key} == {1}
    prepared, family = student("bart")
    packed = pack_student(prepared, family)
    matrix = packed.matrices["model.encoder.layers.0.fc1.weight"]
    assert (matrix.bits, matrix.lowest, matrix.fields.shape) == (2, -2, (26, 5))


def test_groups_and_exclusions(student):
    overrides = [
        "quantizer@quant.weight.quantizer=per_group",
        "quant.weight.quantizer.group_size=8",
    ]
    prepared, family = student("bart", *overrides, "quant.exclude=['*.fc2']")
    packed = pack_student(prepared, family, positions_bits=32)
    assert "model.encoder.layers.0.fc2.weight" in packed.tensors
    matrix = packed.matrices["model.encoder.layers.0.fc1.weight"]
    assert (matrix.group_size, matrix.scale.shape) == (8, (26, 3))
    expected = {**weights_alone(prepared), **quantized_weights(prepared)}
    for key in packed.uses:
        torch.testing.assert_close(packed.weight(key), expected[key], rtol=0, atol=0)


def test_one_group_a_row_is_no_group(student):
    overrides = ["quantizer@quant.weight.quantizer=per_group"]
    prepared, family = student("bart", *overrides, "quant.weight.quantizer.group_size=64")
    packed = pack_student(prepared, family, positions_bits=32)
    matrix = packed.matrices["model.encoder.layers.0.fc1.weight"]
    assert (matrix.group_size, matrix.scale.shape) == (None, (26, 1))
    expected = quantized_weights(prepared)["model.encoder.layers.0.fc1.weight"]
    torch.testing.assert_close(matrix.dequantize(), expected, rtol=0, atol=0)


def test_positions_take_eight_bits_where_they_are_learned(student):
    prepared, family = student("bart")
    packed = pack_student(prepared, family)
    key = "model.encoder.embed_positions.weight"
    table = weights_alone(prepared)[key]
    assert packed.matrices[key].bits == 8
    error = (packed.weight(key) - table).abs().amax(1)
    assert bool((error <= table.abs().amax(1) / 127 / 2 * 1.001).all())
    prepared, family = student("marian")
    assert not any("position" in key for key in pack_student(prepared, family).uses)
    prepared, family = student("t5")
    name = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    assert name in pack_student(prepared, family).tensors


def test_a_wrong_width_of_positions_is_refused(student):
    prepared, family = student("bart")
    with pytest.raises(ValueError, match="positions_bits=4 is neither 8 nor 32"):
        pack_student(prepared, family, positions_bits=4)


@given(st.data(), st.sampled_from(WIDTHS), st.integers(1, 5), st.integers(1, 19))
def test_fields_come_back(data, bits, rows, columns):
    values = data.draw(
        st.lists(st.integers(0, 2**bits - 1), min_size=rows * columns, max_size=rows * columns)
    )
    matrix = torch.tensor(values, dtype=torch.uint8).view(rows, columns)
    packed = pack_fields(matrix, bits)
    assert packed.shape == (rows, -(-columns * bits // 8))
    torch.testing.assert_close(unpack_fields(packed, bits, columns), matrix, rtol=0, atol=0)


def test_half_precision_only_where_it_is_exact():
    assert narrowest(torch.tensor([0.5, 1.25])).dtype == torch.float16
    assert narrowest(torch.tensor([0.5, 0.1])).dtype == torch.float32
    assert narrowest(torch.tensor([65536.0])).dtype == torch.float32


@pytest.mark.parametrize("recipe", RECIPES)
def test_quantizers_of_activations_are_built_again(student, recipe):
    prepared, family = student("bart", f"quant={recipe}")
    packed = pack_student(prepared, family)
    descriptions = [
        *packed.inputs.values(),
        *(d for o in packed.operands.values() for d in o.values()),
    ]
    x = torch.randn(2, 3, 20)
    modules = dict(prepared.named_modules())
    for name, described in packed.inputs.items():
        original: FakeQuantizer | None = modules[name].input_quantizer
        assert (described is None) == (original is None or not original.enabled)
        if described is not None:
            torch.testing.assert_close(described.build().eval()(x), original(x), rtol=0, atol=0)
    assert recipe == "none" or descriptions


def test_nothing_but_own_quantizers_is_built(student):
    with pytest.raises(ValueError, match="no quantizer 'Popen'"):
        QuantizerDescription("Popen", {}).build()
    known = describe(student("bart")[0].lm_head.input_quantizer)
    with pytest.raises(ValueError, match="cannot have"):
        QuantizerDescription(known.kind, {**known.arguments, "shell": True}).build()
