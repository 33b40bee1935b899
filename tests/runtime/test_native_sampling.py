"""Sampling draws from the distribution that Hugging Face's warpers leave."""

import collections

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from dq_lightning.runtime.native import NativeEngine
from dq_lightning.runtime.settings import GenerationSettings

SAMPLING = {
    "decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_ids": (2,), "max_length": 12,
    "do_sample": True,
}  # fmt: skip
SOURCE = [5, 9, 33, 4]


@pytest.fixture(scope="session")
def engine(student, packed):
    return NativeEngine(packed(student("bart")), threads=2)


def probabilities(engine, temperature, top_k, top_p):
    """Of the first token."""
    scores = torch.from_numpy(engine.logits([SOURCE], [[1]])[0])
    warpers = [TemperatureLogitsWarper(temperature), TopKLogitsWarper(top_k)]
    for warper in [*warpers, TopPLogitsWarper(top_p)]:
        scores = warper(None, scores)
    return scores.softmax(-1)[0].numpy()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 70, 1.0), (2.0, 5, 1.0), (1.5, 60, 0.6)]
)
def test_first_tokens_are_as_frequent_as_they_are_probable(engine, temperature, top_k, top_p):
    own = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "max_length": 2}
    drawn, count = collections.Counter(), 4000
    settings = GenerationSettings(**{**SAMPLING, **own}, num_return_sequences=count)
    drawn.update(text.token_ids[0] for text in engine.generate([SOURCE], settings))
    expected = probabilities(engine, temperature, top_k, top_p)
    assert set(drawn) <= set(np.flatnonzero(expected))
    for token, probability in enumerate(expected):
        deviation = (probability * (1 - probability) / count) ** 0.5
        assert abs(drawn[token] / count - probability) < 5 * deviation + 1e-9


@pytest.mark.parametrize("beams", [1, 3])
def test_the_seed_and_the_source_alone_decide(engine, beams):
    settings = GenerationSettings(**SAMPLING, num_beams=beams, temperature=2.0, seed=7)
    sources = [[5, 6, 7], SOURCE, [8] * 30]
    together = engine.generate(sources, settings)
    alone = [engine.generate([source], settings)[0] for source in sources]
    assert together == alone
    other = GenerationSettings(**SAMPLING, num_beams=beams, temperature=2.0, seed=8)
    assert together != engine.generate(sources, other)


def test_several_texts_of_a_source_differ_and_end_by_themselves(engine):
    settings = GenerationSettings(**SAMPLING, temperature=3.0, num_return_sequences=6, seed=1)
    texts = engine.generate([SOURCE, SOURCE], settings)
    assert texts[:6] == texts[6:]
    assert len({tuple(text.token_ids) for text in texts[:6]}) > 3
    assert all(2 not in text.token_ids[:-1] for text in texts)


@pytest.mark.parametrize("own", [{"top_k": 1}, {"top_p": 1e-4}, {"temperature": 1e-4}])
def test_the_most_probable_alone_is_the_greedy_text(engine, own):
    greedy = GenerationSettings(**{**SAMPLING, "do_sample": False})
    found = engine.generate([SOURCE], GenerationSettings(**{**SAMPLING, **own}))
    assert found == engine.generate([SOURCE], greedy)


def test_beams_of_one_likely_token_each_are_likely(engine):
    """Scores of sampled beams are sums of log-probabilities, as those of a search are."""
    settings = GenerationSettings(**SAMPLING, num_beams=4, num_return_sequences=4, seed=3)
    texts = engine.generate([SOURCE], settings)
    best = engine.generate([SOURCE], GenerationSettings(**SAMPLING | {"do_sample": False},
                                                        num_beams=4))[0]  # fmt: skip
    assert [text.score for text in texts] == sorted((t.score for t in texts), reverse=True)
    assert texts[0].score < best.score + 1.0
