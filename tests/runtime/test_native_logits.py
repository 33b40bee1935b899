"""The native engine's logits are the fake-quantized student's, wherever no activation flips."""

import numpy as np
import pytest
import torch

from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.modules import FakeQuantizedLinear
from dq_lightning.runtime.build import INSTRUCTION_SETS
from dq_lightning.runtime.engine_torch import TorchEngine
from dq_lightning.runtime.native import NativeEngine

# Two ways to sum the same products end up this far apart, in steps of a code, at most.
TIE = 5e-5
RECIPES = {
    "default": [],
    "fp_head": ["quant.head=fp"],
    "int8_head": ["quant.head=int8"],
    "4_bits": ["quant.bits=4"],
    "8_bits": ["quant.bits=8"],
    "1_bit": [
        "quant.bits=1-1-8",
        "quantizer@quant.weight.quantizer=tbt_binary",
        "quantizer@quant.embedding.quantizer=tbt_binary",
    ],
    "ternary": ["quant=ternary"],
    # One scale a matrix and no bias: outputs are whole multiples of one number, so that the next
    # quantizer meets exact ties, which float noise decides in the student.
    "quantbart": ["quant=quantbart", "quant.bits=2-2-32"],
    "narrow_activations": ["quant.activation.bits=6", "quant.attention.bits=5"],
    "clipped": ["+quant.activation.quantizer.clip=1.5", "+quant.attention.quantizer.clip=0.9"],
    "float_probabilities": ["+quantizer@quant.probabilities.quantizer=identity"],
    "float_weights": ["quant.weight.bits=32"],
    "float_attention": ["quant.attention.bits=32"],
    "float_activations": ["quant.bits=2-2-32"],
    "no_quantization": ["quant=none"],
}
EXCLUDED = {
    "bart": ["*.fc2", "*.layers.1.self_attn", "*q_proj", "*.decoder.embed_tokens"],
    "flan": ["*.wo", "*.block.2.layer.0.SelfAttention", "*.v", "lm_head"],
}


def pairs(count, seed=0, longest=6):
    generator = np.random.default_rng(seed)
    for _ in range(count):
        lengths = generator.integers(1, longest, 2)
        source, target = (generator.integers(3, 70, length).tolist() for length in lengths)
        yield source, [1, *target]


class Margins:
    """How near the activations of a forward pass come to where their codes would flip."""

    def __init__(self, model):
        for module in model.modules():
            own = [getattr(module, "input_quantizer", None)]
            own += list(getattr(module, "attention_quantizers", {}).values())
            for quantizer in own:
                if isinstance(quantizer, FakeQuantizer) and quantizer.enabled:
                    quantizer.register_forward_pre_hook(self.look)
        self.nearest = 0.5

    def look(self, quantizer, inputs):
        quantized = quantizer.quantize(inputs[0])
        steps = inputs[0] * quantized.inverse_scale
        steps = steps[steps.abs() < 2 ** (quantizer.bits - 1)]  # beyond it clipping decides
        if steps.numel() > 0:
            distance = ((steps - steps.floor()) - 0.5).abs()
            self.nearest = min(self.nearest, float(distance.min()))


def check(model, engine, count=8):
    """Agreement of every pair that no tie can flip; how many pairs agree."""
    margins = Margins(model)
    agreeing = clear = 0
    for source, target in pairs(count):
        margins.nearest = 0.5
        ids, decoder_ids = torch.tensor([source]), torch.tensor([target])
        expected = model(input_ids=ids, decoder_input_ids=decoder_ids).logits[0].numpy()
        (logits,) = engine.logits([source], [target])
        error = float(np.abs(logits - expected).max() / np.abs(expected).max())
        if margins.nearest > TIE:
            clear += 1
            assert error < 1e-5, (source, target)
        agreeing += error < 1e-4
    print(f"{agreeing} of {count} pairs agree, {clear} of them without a tie nearby")
    assert clear >= 2 or agreeing == count
    assert agreeing >= 0.4 * count  # clipped rows share a scale, whose ties come more often


def test_every_family(student, packed, family_name):
    model = student(family_name)
    check(model, NativeEngine(packed(model, positions_bits=32)))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["bart", "flan"])
def test_recipes(student, packed, name, recipe):
    model = student(name, *RECIPES[recipe])
    check(model, NativeEngine(packed(model, positions_bits=32)))


@pytest.mark.parametrize(
    ("name", "pattern"), [(n, p) for n, patterns in EXCLUDED.items() for p in patterns]
)
def test_modules_left_in_full_precision(student, packed, name, pattern):
    model = student(name, f"quant.exclude=['{pattern}']")
    check(model, NativeEngine(packed(model, positions_bits=32)))


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize(("name", "recipe"), [("bart", "default"), ("flan", "float_activations")])
def test_every_instruction_set(student, packed, name, recipe, isa):
    model = student(name, *RECIPES[recipe])
    try:
        engine = NativeEngine(packed(model, positions_bits=32), isa=isa)
    except ValueError as error:
        pytest.skip(str(error))
    assert isa in engine.name
    check(model, engine)


def test_long_texts(student, packed):
    """Relative positions beyond the last bucket, several blocks of keys, a ragged end."""
    model = student("t5", "quant.bits=8-8-32")
    engine = NativeEngine(packed(model))
    long = (p for p in pairs(99, longest=400) if min(map(len, p)) > 130)
    source, target = next(long)
    ids, decoder_ids = torch.tensor([source]), torch.tensor([target])
    expected = model(input_ids=ids, decoder_input_ids=decoder_ids).logits[0].numpy()
    (logits,) = engine.logits([source], [target])
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("heads", [(8, 1), (1, 8), (4, 2), (2, 3)])
@pytest.mark.parametrize("recipe", ["default", "float_attention"])
def test_stacks_of_different_sizes(student, packed, heads, recipe):
    """Each thread's memory holds the rows of both stacks, whichever has the wider heads."""
    encoder, decoder = heads
    sizes = {
        "encoder_attention_heads": encoder, "decoder_attention_heads": decoder,
        "encoder_ffn_dim": 100 * decoder, "decoder_ffn_dim": 100 * encoder,
        "encoder_layers": 1, "decoder_layers": 1, "d_model": 384, "init_std": 0.05,
    }  # fmt: skip
    stored = packed(student("bart", *RECIPES[recipe], **sizes))
    sources, targets = zip(*(pair for pair in pairs(8, longest=60)), strict=True)
    expected = TorchEngine(stored).logits(sources, targets)
    for found, logits in zip(NativeEngine(stored).logits(sources, targets), expected, strict=True):
        assert np.abs(found - logits).max() < 0.02 * np.abs(logits).max()  # some codes flip


def test_positions_in_eight_bits_are_the_packed_ones(student, packed):
    model = student("bart", "quant.bits=2-2-32")
    stored = packed(model)
    key = "model.encoder.embed_positions.weight"
    for name in (key, key.replace("encoder", "decoder")):
        model.get_parameter(name).data = stored.weight(name)
    check(model, NativeEngine(stored), count=4)


def test_weights_are_in_memory_once_and_packed(student, packed):
    model = student("bart")
    stored = packed(model)
    matrices = sum(matrix.nbytes for matrix in stored.matrices.values())
    tensors = sum(t.numel() * 4 for t in stored.tensors.values())
    rows = sum(matrix.rows * 4 for matrix in stored.matrices.values())
    padding = 16 * 80 * len(stored.matrices)  # to blocks of 16 rows
    assert NativeEngine(stored).resident_bytes < matrices + tensors + 2 * rows + padding
    linear = sum(isinstance(m, FakeQuantizedLinear) for m in model.modules())
    assert linear > 20
