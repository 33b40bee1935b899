"""Settings mean what Hugging Face makes of the same names and values."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from dq_lightning.runtime.engine_torch import TorchEngine
from dq_lightning.runtime.settings import SETTINGS, GenerationSettings

TOKENS = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}
# The generation settings of published models, their token ids brought into a tiny vocabulary.
PUBLISHED = {
    "bart-large-cnn": {
        "early_stopping": True, "length_penalty": 2.0, "max_length": 14, "min_length": 6,
        "no_repeat_ngram_size": 3, "num_beams": 4, "forced_bos_token_id": 5,
        "forced_eos_token_id": 2, "bos_token_id": 5,
    },
    "bart-large-xsum": {
        "early_stopping": True, "max_length": 12, "min_length": 5, "no_repeat_ngram_size": 3,
        "num_beams": 6, "forced_eos_token_id": 2,
    },
    "pegasus": {"num_beams": 8, "length_penalty": 0.6, "max_length": 12, "forced_eos_token_id": 2},
    "marian": {
        "bad_words_ids": [[0], [2]], "num_beams": 4, "max_length": 12, "forced_eos_token_id": 2,
        "renormalize_logits": True,
    },
    "mbart-50": {
        "early_stopping": True, "max_length": 12, "num_beams": 5, "forced_eos_token_id": [2],
        "decoder_start_token_id": 2, "forced_bos_token_id": 7,
    },
    "nllb": {"max_length": 12, "decoder_start_token_id": 2, "forced_bos_token_id": 9},
    "t5": {"decoder_start_token_id": 0, "_from_model_config": True, "bos_token_id": None},
    "long documents": {
        "num_beams": 3, "max_length": 12, "no_repeat_ngram_size": 2,
        "encoder_no_repeat_ngram_size": 1, "repetition_penalty": 3.5, "early_stopping": "never",
    },
    "nothing": {},
}  # fmt: skip
OVERRIDES = [
    {},
    {"max_new_tokens": 7},
    {"max_length": 8, "min_length": 8},
    {"max_length": 6, "max_new_tokens": 9, "min_new_tokens": 3},
    {"num_beams": 3, "num_return_sequences": 2, "length_penalty": -1.0, "early_stopping": "never"},
    {"num_beams": 2, "early_stopping": False, "forced_eos_token_id": None},
]


@pytest.fixture(scope="module")
def model(student):
    return student("bart", "quant.bits=8")


@pytest.fixture(scope="module")
def engine(model, packed):
    return TorchEngine(packed(model, positions_bits=32))


@pytest.mark.parametrize("published", PUBLISHED)
def test_texts_are_those_of_generate(published, model, engine, sources):
    stored = {**TOKENS, **PUBLISHED[published]}
    model.generation_config = GenerationConfig(**stored)
    ids = torch.tensor([sources[0]])
    for overrides in OVERRIDES:
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), **overrides).tolist()
        ours = engine.generate([sources[0]], GenerationSettings.of(stored, **overrides))
        assert len(theirs) == len(ours)
        for row, own in zip(theirs, ours, strict=True):
            assert row[1 : 1 + len(own.token_ids)] == own.token_ids
            assert set(row[1 + len(own.token_ids) :]) <= {0, 2}


def test_a_published_config_becomes_these_settings():
    stored = {**GenerationConfig(**TOKENS).to_dict(), **PUBLISHED["marian"]}
    assert GenerationSettings.of(stored) == GenerationSettings(
        decoder_start_token_id=1, pad_token_id=0, eos_token_ids=(2,), num_beams=4, max_length=12,
        forced_eos_token_id=2, bad_token_ids=(0,), renormalize_logits=True,
    )  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    *[st.fixed_dictionaries({}, optional={
        "max_length": st.integers(2, 90), "min_length": st.integers(0, 90),
        "max_new_tokens": st.none() | st.integers(1, 90),
        "min_new_tokens": st.none() | st.integers(0, 90),
    }) for _ in range(2)]
)  # fmt: skip
def test_lengths_have_hugging_faces_precedence(model, stored, overrides):
    for edge in ("min", "max"):  # no override that a stored setting makes void
        if stored.get(f"{edge}_new_tokens") is not None and f"{edge}_length" in overrides:
            overrides.setdefault(f"{edge}_new_tokens", None)
    model.generation_config = GenerationConfig(**TOKENS, **stored)
    config, _ = model._prepare_generation_config(None, **overrides)
    given = {**stored, **overrides}
    unset = [given.get(f"{edge}_length") is None for edge in ("max", "min")]
    config = model._prepare_generated_length(config, *unset, "input_ids", 1, torch.zeros(1, 1))
    ours = GenerationSettings.of({**TOKENS, **stored}, **overrides)
    assert (ours.min_length, ours.max_length) == (config.min_length, config.max_length)


def test_defaults_are_hugging_faces():
    theirs = GenerationConfig()._get_default_generation_params()
    ours = {name: setting.default for name, setting in SETTINGS.items() if name in theirs}
    assert ours == {name: theirs[name] for name in ours} | {"max_length": 1 + theirs["max_length"]}


def test_every_name_of_transformers_is_known_and_off_by_default():
    GenerationSettings.of({**GenerationConfig().to_dict(), **TOKENS})
    GenerationSettings.of({**GenerationConfig._get_default_generation_params(), **TOKENS})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"num_beam": 4}, "num_beam is unknown; the known ones: bad_words_ids, bos_token_id, "),
        ({"diversity_penalty": 0.5}, "diversity_penalty=0.5 is not supported; the known ones: "),
        ({"num_beams": 0}, "num_beams=0 cannot be; write an integer from 1 to 2147483647."),
        ({"num_beams": 2.5}, "num_beams=2.5 cannot be; write an integer from 1 to"),
        ({"num_beams": True}, "num_beams=True cannot be"),
        ({"num_beams": "4"}, "num_beams='4' cannot be"),
        ({"top_p": 1.5}, "top_p=1.5 cannot be; write a number from 0 to 1."),
        ({"length_penalty": float("nan")}, "length_penalty=nan cannot be; write a number."),
        ({"length_penalty": float("-inf")}, "length_penalty=-inf cannot be; write a number."),
        ({"length_penalty": 10**400}, "000 cannot be; write a number."),
        ({"temperature": 0}, "temperature=0 cannot be; write a number from 1e-06."),
        ({"eos_token_id": [2, 2**31]}, "eos_token_id=2147483648 cannot be"),
        ({"bad_words_ids": [[2**31]]}, "bad_words_ids=2147483648 cannot be"),
        ({"do_sample": 1}, "do_sample=1 cannot be; write true or false."),
        ({"early_stopping": "often"}, "early_stopping='often' cannot be; write true, false or"),
        ({"bad_words_ids": [[1, 2]]}, "is not supported; write words of one token"),
        ({"forced_eos_token_id": [1, 2]}, "forced_eos_token_id=[1, 2] cannot be"),
        ({"num_return_sequences": 2}, "num_return_sequences=2 needs as many beams (num_beams=1)"),
        ({"decoder_start_token_id": None}, "decoder_start_token_id is not set"),
    ],
)
def test_a_wrong_setting_is_one_sentence(given, sentence):
    with pytest.raises(ValueError) as raised:
        GenerationSettings.of(TOKENS, **given)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [name for name, s in SETTINGS.items() if s.kind is int])
def test_an_integer_that_no_engine_can_hold_is_refused(name):
    if name != "seed":  # 64 bits in every engine
        highest = 2**31 - (2 if name.endswith("new_tokens") else 1)
        assert SETTINGS[name].check(name, highest) == highest
        with pytest.raises(ValueError, match=rf"{name}=\d+ cannot be; .* to {highest}\."):
            GenerationSettings.of({**TOKENS, "do_sample": True}, **{name: highest + 1})


def test_an_override_without_effect_is_refused():
    stored = {**TOKENS, "max_new_tokens": 5}
    with pytest.raises(
        ValueError, match=r"max_length=9 would have no effect.*max_new_tokens=\.\.\."
    ):
        GenerationSettings.of(stored, max_length=9)
    assert GenerationSettings.of(stored, max_length=9, max_new_tokens=None).max_length == 9


SAMPLED = {"temperature": 0.3, "top_k": 3, "top_p": 0.9, "seed": 4}
BEAMED = {"length_penalty": 2.0, "early_stopping": True}


@pytest.mark.parametrize("name", [*SAMPLED, *BEAMED])
def test_an_override_that_is_not_read_is_refused(name):
    sampled = name in SAMPLED
    switch = {"do_sample": True} if sampled else {"num_beams": 3}
    off = {"do_sample": False} if sampled else {"num_beams": 1}
    own = {name: {**SAMPLED, **BEAMED}[name]}
    needed = "do_sample=true" if sampled else "num_beams=2 or more"
    sentence = f"{name}={own[name]} would have no effect without {needed}."
    for stored, more in ({}, {}), ({}, off), (switch, off), ({name: 0.5, **switch}, off):
        with pytest.raises(ValueError) as raised:
            GenerationSettings.of({**TOKENS, **stored}, **own, **more)
        assert str(raised.value) == sentence
    for stored, more in ({}, switch), (switch, {}), (off, switch):
        assert (
            getattr(GenerationSettings.of({**TOKENS, **stored}, **own, **more), name) == own[name]
        )


@pytest.mark.parametrize("switches", [{}, {"do_sample": False, "num_beams": 1}])
def test_what_is_stored_or_the_default_asks_for_nothing(switches):
    stored = {**TOKENS, **SAMPLED, **BEAMED, **switches, "max_length": 9, "max_new_tokens": 5}
    expected = GenerationSettings.of(stored)
    assert GenerationSettings.of(stored, **{**stored, "max_new_tokens": 5}) == expected
    assert GenerationSettings.of(stored, max_length=9) == expected
    defaults = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "seed": 0, "length_penalty": 1.0,
                "early_stopping": False}  # fmt: skip
    GenerationSettings.of(stored, **defaults)
    GenerationSettings.of(stored, **dict.fromkeys(defaults))
