"""Texts of a batch and of a split: whatever the order, the batch size and the padding."""

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.evaluation.generation import TextGenerator, generate_split

WORDS = ["cat", "a", "dogma", "bits", "zoo"]


@pytest.fixture
def model():
    torch.manual_seed(1)
    config = BartConfig(
        vocab_size=70, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, init_std=0.5,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, forced_eos_token_id=None, dropout=0.5,
    )  # fmt: skip
    return BartForConditionalGeneration(config)


@pytest.fixture
def generator():
    return TextGenerator(build_g2p_tokenizer(), {"max_new_tokens": 8, "do_sample": False})


def batches(size, order=(0, 1, 2, 3, 4)):
    order = list(order)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        encoded = build_g2p_tokenizer()([WORDS[n] for n in rows], padding=True, return_tensors="pt")
        yield {**encoded, "index": torch.tensor(rows)}


def test_one_text_a_row_without_marks_or_borders(model, generator):
    texts = generator(model, next(batches(5)))
    assert len(texts) == 5
    assert len(set(texts)) > 1
    for text in texts:
        assert "<" not in text
        assert text == text.strip()


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(model, generator, training):
    model.train(training)
    first, second = (generator(model, next(batches(5))) for _ in range(2))
    assert first == second  # no dropout while generating
    assert all(module.training is training for module in model.modules())


def test_the_model_is_left_as_it_was_when_generation_fails(model, generator):
    model.train()
    with pytest.raises(KeyError):
        generator(model, {"input_ids": torch.ones(1, 2, dtype=torch.long)})
    with pytest.raises((IndexError, ValueError)):
        generator(model, {"input_ids": torch.full((1, 2), 99), "attention_mask": torch.ones(1, 2)})
    assert model.training


def test_settings_reach_generate(model, generator):
    longer = TextGenerator(generator.tokenizer, {"min_new_tokens": 12, "max_new_tokens": 12})
    assert longer(model, next(batches(5))) != generator(model, next(batches(5)))


def test_what_settings_leave_out_is_the_models_own(model, generator):
    model.generation_config.max_new_tokens = 1
    silent = TextGenerator(generator.tokenizer, {"do_sample": False})
    assert max(len(text.split()) for text in silent(model, next(batches(5)))) <= 1


@pytest.mark.parametrize("beams", [1, 3])
def test_a_split_does_not_depend_on_batch_size_or_order(model, generator, beams):
    fixed = TextGenerator(generator.tokenizer, {**generator.settings, "num_beams": beams})
    expected = [text for batch in batches(1) for text in fixed(model, batch)]
    for size, order in ((5, range(5)), (2, range(5)), (3, [4, 1, 0, 3, 2])):
        texts, seconds = generate_split(model, batches(size, order), fixed)
        assert texts == expected
        assert seconds > 0.0


def test_only_generation_is_timed(model, generator, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    assert generate_split(model, batches(2), generator)[1] == 3.0  # three batches, one tick each
