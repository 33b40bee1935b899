"""The torch engine computes what the fake-quantized student computes, to the last bit."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dq_lightning.artifacts.packed_matrix import pack_matrix
from dq_lightning.quantization.modules import FakeQuantizedLinear, ParameterQuantizer
from dq_lightning.quantization.symmetric import SymmetricQuantizer
from dq_lightning.runtime import engine_torch
from dq_lightning.runtime.engine_torch import TorchEngine
from dq_lightning.runtime.native import NativeEngine
from dq_lightning.runtime.packed_modules import PackedWeight, packed_linear
from dq_lightning.runtime.settings import GenerationSettings

RECIPES = {
    "default": [],
    "8 bits": ["quant.bits=8"],
    "dq_bart": ["quant=dq_bart"],
    "tbt": ["quant=tbt"],
    "tbt at 1 bit": ["quant=tbt", "quant.bits=1-1-2"],
    "lsq": ["quant=lsq"],
    "quantbart": ["quant=quantbart"],
    "ternary": ["quant=ternary"],
    "stretched": ["quant=stretched"],
    "float weights": ["quant.bits=32-32-8"],
    "float inputs": ["quant.bits=4-4-32", "quant.head=int8"],
    "float head": ["quant.head=fp"],
    "excluded": ["quant.exclude=[*.0.*]"],
    "none": ["quant=none"],
}
BEAMS = {"num_beams": 3, "max_length": 9, "min_length": 4, "length_penalty": 0.7,
         "early_stopping": True, "no_repeat_ngram_size": 2}  # fmt: skip


def padded(sources):
    longest = max(map(len, sources))
    ids = torch.tensor([[*source, *[0] * (longest - len(source))] for source in sources])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def check(model, engine, sources):
    """Logits and beams of a student and of the engine that holds it packed."""
    target = [1, *sources[0]]
    with torch.no_grad():
        source = torch.tensor([sources[0]])
        expected = model(input_ids=source, decoder_input_ids=torch.tensor([target])).logits
    found = engine.logits([sources[0]], [target])[0]
    assert torch.equal(torch.from_numpy(found), expected[0])

    settings = GenerationSettings.of(model.generation_config.to_dict(), **BEAMS)
    options = {**BEAMS, "return_dict_in_generate": True, "output_scores": True}
    theirs = model.generate(**padded(sources), **options)
    ours = engine.generate(sources, settings)
    assert [g.score for g in ours] == theirs.sequences_scores.tolist()
    for own, row in zip(ours, theirs.sequences.tolist(), strict=True):
        assert row[1:][: len(own.token_ids)] == own.token_ids
        # a padding token of 0 makes transformers fill up with EOS
        assert set(row[1 + len(own.token_ids) :]) <= {0, 2}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_to_the_last_bit(recipe, student, packed, sources):
    model = student("bart", *RECIPES[recipe])
    check(model, TorchEngine(packed(model, positions_bits=32)), sources)


@pytest.mark.parametrize("recipe", ["default", "float head"])
def test_every_family_to_the_last_bit(family_name, recipe, student, packed, sources):
    model = student(family_name, *RECIPES[recipe])
    check(model, TorchEngine(packed(model, positions_bits=32)), sources)


@pytest.mark.parametrize("inputs", [None, SymmetricQuantizer(8, "per_token")])
@pytest.mark.parametrize("bias", [False, True])
def test_a_wide_layer_sums_in_the_same_order(bias, inputs):
    torch.manual_seed(0)
    linear = torch.nn.Linear(771, 513, bias=bias).requires_grad_(False)
    weight = SymmetricQuantizer(4, "per_row")
    fake = FakeQuantizedLinear.from_linear(linear, ParameterQuantizer(weight), inputs)
    packed_weight = PackedWeight(pack_matrix(weight.quantize(linear.weight), 4))
    x = torch.randn(7, 771)
    expected = fake(x)
    assert torch.equal(packed_linear(linear, packed_weight, inputs)(x), expected)


def test_groups_of_a_row(student, packed, sources):
    model = student("bart", "quantizer@quant.weight.quantizer=per_group",
                    "quant.weight.quantizer.group_size=6")  # fmt: skip
    check(model, TorchEngine(packed(model, positions_bits=32)), sources)


def test_packed_positions_are_the_dequantized_ones(student, packed, sources):
    model = student("bart")
    small = packed(model)
    for name in ("model.encoder", "model.decoder"):
        positions = model.get_submodule(f"{name}.embed_positions").weight
        positions.data.copy_(small.weight(f"{name}.embed_positions.weight"))
    check(model, TorchEngine(small), sources)


def test_matrices_are_unpacked_for_one_call_or_for_each_product(student, packed, sources,
                                                                monkeypatch):  # fmt: skip
    model = student("bart", "quant.bits=8")
    engine = TorchEngine(packed(model, positions_bits=32))
    weights = [m for m in engine.model.modules() if isinstance(m, PackedWeight)]
    seen = []
    engine.model.register_forward_hook(lambda *_: seen.append(weights[-1].kept is not None))
    check(model, engine, sources)
    assert all(seen)
    assert [weight.kept for weight in weights] == [None] * len(weights)
    monkeypatch.setattr(engine_torch, "unpacked_once", contextlib.nullcontext)  # as on a GPU
    check(model, engine, sources)
    assert not seen[-1]


@pytest.mark.parametrize("beams", [1, 2])
def test_no_end_token_means_none_in_both_engines(beams, student, packed, sources):
    model = student("bart", "quant.bits=2-2-32")
    assert model.generation_config.eos_token_id == 2
    settings = GenerationSettings.of(
        model.generation_config.to_dict(), eos_token_id=None, num_beams=beams, max_length=8,
        forced_bos_token_id=2,
    )  # fmt: skip
    small = packed(model, positions_bits=32)
    texts = [
        [generation.token_ids for generation in engine.generate(sources, settings)]
        for engine in (TorchEngine(small), NativeEngine(small))
    ]
    assert texts[0] == texts[1]
    assert {(text[0], len(text)) for text in texts[0]} == {(2, 7)}


def test_threads_draw_what_one_draws(student, packed, sources):
    small = packed(student("bart"))
    engines = [TorchEngine(small), TorchEngine(small)]  # the seed is the process's
    settings = GenerationSettings(
        decoder_start_token_id=1, pad_token_id=0, do_sample=True, max_length=6, seed=3
    )
    expected = engines[0].generate(sources, settings)
    logits = engines[0].logits([sources[0]], [[1, 5]])[0]
    for engine in engines:  # another thread's turn before each draw
        engine.model.register_forward_hook(lambda *_: time.sleep(0.001))

    def call(number):
        drawn = engines[number % 2].generate(sources, settings)
        return drawn, engines[number % 2].logits([sources[0]], [[1, 5]])[0]

    with ThreadPoolExecutor(4) as pool:
        for drawn, found in pool.map(call, range(8)):
            assert drawn == expected
            assert (found == logits).all()


def test_memory_holds_packed_weights(student, packed):
    small = packed(student("flan"))
    engine = TorchEngine(small)
    stored = sum(matrix.nbytes for matrix in small.matrices.values())
    floats = sum(4 * tensor.numel() for tensor in small.tensors.values())
    assert engine.resident_bytes == stored + floats
