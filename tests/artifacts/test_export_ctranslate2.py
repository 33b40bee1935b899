"""Exports to CTranslate2 say what the dequantized student says, through CTranslate2 itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from transformers import (
    AutoTokenizer,
    BartConfig,
    M2M100Config,
    MarianConfig,
    MBartConfig,
    MT5Config,
    PegasusConfig,
    T5Config,
)

from dq_lightning.artifacts.dequantized import dequantized_model
from dq_lightning.artifacts.export_ctranslate2 import export_ctranslate2, main
from dq_lightning.artifacts.packed_file import write_packed
from dq_lightning.artifacts.packed_student import pack_student
from dq_lightning.artifacts.tokenizer_files import tokenizer_files
from dq_lightning.artifacts.vocabulary import vocabulary_of
from dq_lightning.choices import build_recipe
from dq_lightning.models.family import family_of
from dq_lightning.models.teacher import resolve_path
from dq_lightning.quantization.prepare import prepare

ctranslate2 = pytest.importorskip("ctranslate2")

CONF = Path(__file__).parents[2] / "conf"
SIZES = {
    "vocab_size": 53, "d_model": 24, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 26,
    "decoder_ffn_dim": 26, "max_position_embeddings": 32, "init_std": 0.3,
}  # fmt: skip
T5 = {
    "vocab_size": 53, "d_model": 24, "d_kv": 6, "d_ff": 26, "num_heads": 3, "num_layers": 2,
    "num_decoder_layers": 2, "decoder_start_token_id": 0, "initializer_factor": 2.0,
}  # fmt: skip
CONFIGS = {
    "bart": BartConfig(**SIZES, scale_embedding=True),
    "mbart": MBartConfig(**SIZES, decoder_start_token_id=2),
    "pegasus": PegasusConfig(**SIZES),
    "marian": MarianConfig(
        **SIZES, pad_token_id=52, decoder_start_token_id=52, eos_token_id=0, bos_token_id=None
    ),
    "m2m100": M2M100Config(**SIZES, decoder_start_token_id=2),
    "t5": T5Config(**T5),
    "flan": T5Config(**T5, feed_forward_proj="gated-gelu"),
    "mt5": MT5Config(**T5),
}
SOURCES = [[5, 9, 13, 20, 7, 33, 2], [6, 4, 2]]


def student(name, *overrides, files=None, config=None):
    torch.manual_seed(7)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        recipe = build_recipe(compose("train", ["quant.bits=8", *overrides]).quant)
    config = config or CONFIGS[name]
    family = family_of(config)
    if name == "flan":  # tied and not scaled: CTranslate2 knows one word for both
        config.scale_decoder_outputs = False
    model = family.model_class(config).eval()
    prepare(model, recipe, family)
    return pack_student(model, family, files=files, positions_bits=32)


def translator(packed, folder, arithmetic="float32"):
    vocabulary = vocabulary_of(packed)
    export_ctranslate2(packed, folder, vocabulary)
    return ctranslate2.Translator(str(folder), compute_type=arithmetic), vocabulary


def scores(packed, folder, arithmetic="float32"):
    """Log-probabilities of fixed targets: by CTranslate2, and by the dequantized student."""
    loaded, vocabulary = translator(packed, folder, arithmetic)
    target = [4, 5, 6, 9, 11]
    texts = [[vocabulary.tokens[place] for place in ids] for ids in (SOURCES[0], target)]
    (found,) = loaded.score_batch([texts[0]], [texts[1]])
    start = packed.generation["decoder_start_token_id"]
    ids, inputs = torch.tensor([SOURCES[0]]), torch.tensor([[start, *target[:-1]]])
    with torch.no_grad():
        logits = dequantized_model(packed)(input_ids=ids, decoder_input_ids=inputs).logits
    expected = torch.log_softmax(logits, -1)[0, range(len(target)), target]
    return np.array(found.log_probs[: len(target)]), expected.numpy()


@pytest.mark.parametrize(
    ("name", "head"),
    [
        *((name, "tied") for name in ("bart", "pegasus", "m2m100", "t5", "flan", "mt5")),
        ("bart", "fp"),
    ],
)
def test_weights_are_the_students_own(name, head, tmp_path):
    """Read as int8 codes and computed in float32: every code and scale was carried over."""
    found, expected = scores(student(name, f"quant.head={head}"), tmp_path / "model")
    limit = 1e-4 if head == "tied" else 0.1  # a float head is rounded to 8 bits
    np.testing.assert_allclose(found, expected, rtol=limit, atol=limit)


def test_ternary_weights_are_the_students_own(tmp_path):
    found, expected = scores(student("bart", "quant.bits=2"), tmp_path / "model")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_integer_arithmetic_is_close(tmp_path):
    """8-bit activations a token: each is off by up to 1/254 of the largest, 14 times in a row."""
    found, expected = scores(student("bart"), tmp_path / "model", arithmetic="int8")
    difference = np.abs(found - expected).max()
    assert 1e-4 < difference < 0.2


def test_rows_are_the_students_own_or_counted(tmp_path):
    packed = student("bart")
    exported = export_ctranslate2(packed, tmp_path / "own", vocabulary_of(packed))
    parameters = sum(p.numel() for p in dequantized_model(packed).parameters())
    assert exported.rounded_rows == 0 and exported.stored_bytes < 2 * parameters
    assert exported.stored_bytes == (tmp_path / "own" / "model.bin").stat().st_size
    packed = student("bart", "quant.head=fp")
    exported = export_ctranslate2(packed, tmp_path / "head", vocabulary_of(packed))
    assert exported.rounded_rows == SIZES["vocab_size"] - 1  # padding's is 0 in any grid


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", CONFIGS)
def test_generated_tokens(name, beams, tmp_path):
    packed = student(name)
    loaded, vocabulary = translator(packed, tmp_path / "model")
    start = packed.generation["decoder_start_token_id"]
    # CTranslate2 asks for mBART's language as the start of the target
    prefix = [[vocabulary.tokens[start]]] * len(SOURCES) if name == "mbart" else None
    results = loaded.translate_batch(
        [[vocabulary.tokens[place] for place in source] for source in SOURCES],
        target_prefix=prefix, beam_size=beams, min_decoding_length=9, max_decoding_length=9,
    )  # fmt: skip
    ids = vocabulary.get_vocab()
    found = [[ids[token] for token in result.hypotheses[0]] for result in results]
    # CTranslate2 forbids the end before the softmax; Marian's has no padding token to generate
    model, rules = dequantized_model(packed), {"renormalize_logits": True}
    if name == "marian":
        rules["bad_words_ids"] = [[packed.generation["pad_token_id"]]]
    lengths = {"min_new_tokens": 9, "max_new_tokens": 9, "forced_eos_token_id": None}
    expected = [
        model.generate(torch.tensor([source]), num_beams=beams, **lengths, **rules)[0, 1:].tolist()
        for source in SOURCES
    ]
    assert found == expected


def test_rows_that_died(tmp_path, recwarn):
    """Scales of 0 and next to it: their rows are zeros, or as small as float32 goes."""
    packed = student("bart", "quant=lsq", "quant.bits=8")
    name = "model.encoder.layers.0.fc1.weight"
    scale = packed.matrices[name].scale.float().expand(SIZES["encoder_ffn_dim"], 1).clone()
    scale[:3, 0] = torch.tensor([0, 1.2e-38, 1e-42])
    changed = replace(packed.matrices[name], scale=scale)
    packed = replace(packed, matrices={**packed.matrices, name: changed})
    found, expected = scores(packed, tmp_path / "model")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]


@pytest.mark.parametrize("function", ["silu", "quick_gelu", "gelu_fast"])
def test_other_activation_functions(function, tmp_path):
    packed = student("bart", config=BartConfig(**SIZES, activation_function=function))
    found, expected = scores(packed, tmp_path / "model")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"encoder_attention_heads": 4}, r"other heads than the decoder's \(4 and 2\)"),
        ({"decoder_attention_heads": 4}, r"other heads than the decoder's \(2 and 4\)"),
        ({"activation_function": "tanh"}, "activation 'tanh' cannot be exported to CTranslate2"),
    ],
)
def test_students_that_ctranslate2_cannot_hold(changed, reason, tmp_path):
    packed = student("bart", config=BartConfig(**SIZES | changed))
    with pytest.raises(ValueError, match=reason):
        export_ctranslate2(packed, tmp_path / "model", vocabulary_of(packed))
    assert not (tmp_path / "model").exists()


def test_an_error_of_our_own_is_no_sentence_about_the_student(monkeypatch, tmp_path):
    monkeypatch.delattr("dq_lightning.artifacts.ctranslate2_codes.OwnCodes.give")
    packed = student("bart")
    with pytest.raises(AttributeError):
        export_ctranslate2(packed, tmp_path / "model", vocabulary_of(packed))


def test_the_command_with_a_tokenizer(tmp_path, capsys):
    tokenizer = AutoTokenizer.from_pretrained(
        resolve_path("pkg://dq_lightning/models/pretrained/g2p")
    )
    size = len(tokenizer) + 3  # made-up tokens fill the vocabulary up
    config = BartConfig(**SIZES | {"vocab_size": size})
    packed = student("bart", files=tokenizer_files(tokenizer), config=config)
    file, folder = tmp_path / "model.dq", tmp_path / "model"
    write_packed(file, packed)
    main([str(file), "--output", str(folder)])
    assert f"{(folder / 'model.bin').stat().st_size:,} bytes" in capsys.readouterr().out
    loaded = ctranslate2.Translator(str(folder))
    tokens = AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens([5, 6, 7])
    (result,) = loaded.translate_batch([tokens], max_decoding_length=4)
    assert set(result.hypotheses[0]) <= {*tokenizer.get_vocab(), *vocabulary_of(packed).tokens}


def test_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ctranslate2.converters", None)
    packed = student("bart")
    with pytest.raises(ValueError, match=r"ctranslate2 is not installed: pip install"):
        export_ctranslate2(packed, tmp_path / "model", vocabulary_of(packed))
