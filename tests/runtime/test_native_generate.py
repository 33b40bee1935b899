"""The native engine's texts are those of Hugging Face's `generate`, for every setting."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from dq_lightning.runtime.native import NativeEngine
from dq_lightning.runtime.settings import GenerationSettings

BASE = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_ids": (2,), "max_length": 16}
CASES = [
    {},
    {"num_beams": 4},
    {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 2.0},
    {"num_beams": 3, "early_stopping": True, "length_penalty": 0.5},
    {"num_beams": 2, "early_stopping": "never", "length_penalty": 1.5},
    {"num_beams": 4, "early_stopping": "never", "length_penalty": 0.0,
     "eos_token_ids": tuple(range(2, 20))},
    {"num_beams": 4, "early_stopping": True, "eos_token_ids": tuple(range(2, 30))},
    {"num_beams": 4, "min_length": 10, "no_repeat_ngram_size": 3},
    {"num_beams": 4, "forced_bos_token_id": 5, "forced_eos_token_id": 2},
    {"forced_bos_token_id": 5, "forced_eos_token_id": 2},
    {"no_repeat_ngram_size": 2, "min_length": 5},
    {"num_beams": 6, "no_repeat_ngram_size": 1},
    {"num_beams": 3, "repetition_penalty": 1.7},
    {"repetition_penalty": 0.6},
    {"num_beams": 4, "encoder_no_repeat_ngram_size": 1, "renormalize_logits": True},
    {"encoder_no_repeat_ngram_size": 2, "bad_token_ids": tuple(range(30, 60))},
    {"num_beams": 5, "eos_token_ids": (2, 7, 9), "length_penalty": -1.0},
    {"num_beams": 4, "eos_token_ids": (), "bad_token_ids": (11, 12)},
    {"num_beams": 2, "eos_token_ids": tuple(range(20, 40)), "num_return_sequences": 2},
    {"num_beams": 4, "max_length": 2},
]  # fmt: skip
# The score of a text that no living beam could write: fewer were possible than were asked for.
# What transformers puts into it then, -1 or a forced token, is an accident.
DEAD = -1e6
# Weights of 2 bits; no code of an activation can flip.
EXACT = ["quant.bits=2-2-32"]


def random_sources(count, seed=0, longest=20):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest, count)
    return [generator.integers(3, 70, length).tolist() for length in lengths]


def expected(model, source, settings):
    """Token ids and scores of Hugging Face's generate, without its padding."""
    names = {"seed", "eos_token_ids", "bad_token_ids", "temperature", "top_k", "top_p"}
    if settings.num_beams == 1:
        names |= {"length_penalty", "early_stopping"}
    config = GenerationConfig(
        **{name: value for name, value in vars(settings).items() if name not in names},
        eos_token_id=list(settings.eos_token_ids) or None,
        bad_words_ids=[[token] for token in settings.bad_token_ids] or None,
        return_dict_in_generate=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lengths that cannot be, which the cases want
        found = model.generate(torch.tensor([source]), generation_config=config)
    rows = [trimmed(row, settings.eos_token_ids) for row in found.sequences.tolist()]
    beams = settings.num_beams > 1
    return rows, found.sequences_scores.tolist() if beams else [None] * len(rows)


def trimmed(row, eos):
    ends = (place for place, token in enumerate(row) if place > 0 and token in eos)
    return row[1 : next(ends, len(row)) + 1]


def check(model, engine, settings, sources):
    found = engine.generate(sources, settings)
    for place, source in enumerate(sources):
        own = found[place * settings.num_return_sequences :][: settings.num_return_sequences]
        for text, row, score in zip(own, *expected(model, source, settings), strict=True):
            if settings.num_beams > 1 and score < DEAD:
                continue
            assert text.token_ids == row
            if settings.num_beams > 1:
                assert text.score == pytest.approx(score, rel=1e-4, abs=1e-5)


@pytest.fixture(scope="session")
def exact(student, packed):
    """Models of both kinds, and their engines."""
    models = {name: without_defaults(student(name, *EXACT)) for name in ("bart", "flan")}
    return {
        name: (model, NativeEngine(packed(model, positions_bits=32), threads=2))
        for name, model in models.items()
    }


def without_defaults(model):
    """transformers fills settings of None up from the model's own."""
    model.generation_config = GenerationConfig()
    return model


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", ["bart", "flan"])
def test_settings(exact, name, case):
    check(*exact[name], GenerationSettings(**{**BASE, **case}), random_sources(2))


some_tokens = st.lists(st.integers(3, 69), max_size=20).map(tuple)


@hypothesis_settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_settings_together(exact, data):
    draw = data.draw
    beams, eos = draw(st.integers(1, 5)), draw(some_tokens)
    settings = GenerationSettings(
        **{**BASE, "max_length": draw(st.integers(2, 14)), "eos_token_ids": eos},
        num_beams=beams,
        num_return_sequences=draw(st.integers(1, beams)),
        length_penalty=draw(st.sampled_from([-0.5, 0.0, 0.8, 1.0, 2.0])),
        early_stopping=draw(st.sampled_from([True, False, "never"])),
        min_length=draw(st.integers(0, 10)),
        no_repeat_ngram_size=draw(st.integers(0, 3)),
        encoder_no_repeat_ngram_size=draw(st.integers(0, 2)),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 0.7, 1.5])),
        forced_bos_token_id=draw(st.sampled_from([None, None, 9])),
        forced_eos_token_id=draw(st.sampled_from([None, None, 2, 9])),
        bad_token_ids=tuple(token for token in draw(some_tokens) if token not in eos),
        renormalize_logits=draw(st.booleans()),
    )
    sources = random_sources(1, draw(st.integers(0, 1000)))
    check(*exact["bart"], settings, sources)


def test_quantized_activations(student, packed, family_name):
    """A code flips in some texts; the others are the same, greedy and with beams."""
    model = without_defaults(student(family_name))
    engine = NativeEngine(packed(model, positions_bits=32))
    sources, equal = random_sources(5, longest=10), 0
    for beams in (1, 3):
        settings = GenerationSettings(**{**BASE, "max_length": 10}, num_beams=beams)
        texts = engine.generate(sources, settings)
        rows = [expected(model, source, settings)[0][0] for source in sources]
        equal += sum(text.token_ids == row for text, row in zip(texts, rows, strict=True))
    print(f"{equal} of {2 * len(sources)} texts are equal")
    assert equal >= 7
