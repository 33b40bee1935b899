"""What the native engine cannot run or read is one clear sentence, never a crash."""

import copy
import pickle
from dataclasses import replace

import pytest

from dq_lightning.runtime.native import NativeEngine
from dq_lightning.runtime.native_parts import UnsupportedError
from dq_lightning.runtime.settings import GenerationSettings

BASE = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_ids": (2,), "max_length": 12}
GROUPS = ["quant.weight.quantizer.group_size=8"]


@pytest.fixture(scope="session")
def bart(student, packed):
    return packed(student("bart"))


@pytest.fixture(scope="session")
def engine(bart):
    return NativeEngine(bart)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["quant=dq_bart"], r"no SymmetricQuantizer \(per_tensor\)"),
        (["quant=tbt"], "no AsymmetricQuantizer"),
        (["quant=tbt", "quant.bits=1-1-1"], "no ElasticQuantizer"),
        (["quantizer@quant.weight.quantizer=per_group", *GROUPS], "scales for groups"),
    ],
)
def test_recipes_without_kernels(student, packed, overrides, words):
    with pytest.raises(UnsupportedError, match=words):
        NativeEngine(packed(student("bart", *overrides)))


@pytest.mark.parametrize(
    "key",
    [
        "model.decoder.layers.1.fc1.weight",
        "model.encoder.layers.0.self_attn_layer_norm.weight",
        "model.shared.weight",
        "model.encoder.embed_tokens.weight",
    ],
)
def test_a_lost_weight(bart, key):
    uses = {name: used for name, used in bart.uses.items() if name != key}
    student = replace(bart, uses=uses)
    if key == "model.shared.weight":  # a name that the engine does not need
        NativeEngine(student)
        return
    with pytest.raises(ValueError, match=f"lacks {key}"):
        NativeEngine(student)


@pytest.mark.parametrize(
    ("key", "other", "words"),
    [
        ("model.decoder.layers.1.fc1.weight", "model.decoder.layers.1.fc2.weight", "16 x 24, not"),
        ("model.decoder.layers.0.fc1.bias", "model.decoder.layers.0.fc2.bias", "16 values, not 24"),
        ("model.encoder.layers.0.self_attn.k_proj.weight", "model.shared.weight", "70 x 16, not"),
        ("lm_head.weight", "model.encoder.layers.0.fc1.weight", "24 values|24"),
    ],
)
def test_a_weight_of_another_shape(bart, key, other, words):
    with pytest.raises(ValueError, match=words):
        NativeEngine(replace(bart, uses={**bart.uses, key: bart.uses[other]}))


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder_layers": 9}, {"decoder_layers": 0}, {"d_model": 8}, {"encoder_ffn_dim": 23},
        {"decoder_attention_heads": 0}, {"activation_function": "mish"},
    ],
)  # fmt: skip
def test_a_config_of_another_model(bart, changes):
    with pytest.raises(ValueError):
        NativeEngine(replace(bart, config={**bart.config, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"relative_attention_max_distance": 10**12}, {"relative_attention_num_buckets": 3},
        {"relative_attention_num_buckets": 600}, {"num_heads": 3}, {"d_kv": 5},
        {"num_decoder_layers": None}, {"dense_act_fn": "mish"}, {"is_gated_act": False},
    ],
)  # fmt: skip
def test_a_t5_config_of_another_model(student, packed, changes):
    flan = packed(student("flan"))
    with pytest.raises(ValueError):
        NativeEngine(replace(flan, config={**flan.config, **changes}))


@pytest.mark.parametrize(
    ("source", "words"), [([], "no tokens"), ([70], "token 70"), ([-1], "-1"), ([5] * 65, "64 pos")]
)
def test_sources_that_the_model_cannot_read(engine, source, words):
    with pytest.raises(ValueError, match=words):
        engine.generate([[5, 6], source], GenerationSettings(**BASE))
    with pytest.raises(ValueError, match=words):
        engine.logits([source], [[1]])
    with pytest.raises(ValueError, match=words):
        engine.logits([[5]], [source])


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"max_length": 66}, "write at most 65"),
        ({"decoder_start_token_id": 70}, "decoder_start_token_id"),
        ({"forced_bos_token_id": 70}, "forced token"),
    ],
)
def test_settings_that_do_not_fit_the_model(engine, own, words):
    with pytest.raises(ValueError, match=words):
        engine.generate([[5, 6]], GenerationSettings(**{**BASE, **own}))


def test_tokens_outside_the_vocabulary_are_no_rule(engine):
    settings = GenerationSettings(**BASE, bad_token_ids=(10_000,), num_beams=2)
    plain = GenerationSettings(**BASE, num_beams=2)
    assert engine.generate([[5]], settings) == engine.generate([[5]], plain)


def test_an_unknown_instruction_set(bart):
    with pytest.raises(ValueError, match="avx9"):
        NativeEngine(bart, isa="avx9")


def test_the_longest_text_fits(engine):
    settings = GenerationSettings(**{**BASE, "max_length": 65, "eos_token_ids": ()}, num_beams=2)
    (text,) = engine.generate([[5] * 64], settings)
    assert len(text.token_ids) == 64


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_engine_cannot_be_copied(bart, copied):
    """Two objects would free it twice."""
    with pytest.raises(TypeError, match="cannot be copied or pickled; load the packed"):
        copied(NativeEngine(bart))


def test_an_engine_that_was_never_built_goes_quietly(bart):
    broken = replace(bart, config={**bart.config, "d_model": 8})
    for _ in range(20):
        with pytest.raises(ValueError):
            NativeEngine(broken)
