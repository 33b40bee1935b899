"""Tiny random models of every kind that a teacher can be, and their inputs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

ENCODER_LAYERS, DECODER_LAYERS, VOCAB = 4, 3, 70
SPECIAL = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 1}


def tiny_bart(**changes: Any) -> PreTrainedModel:
    sizes = {
        "vocab_size": VOCAB, "d_model": 16, "encoder_layers": ENCODER_LAYERS,
        "decoder_layers": DECODER_LAYERS, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
        "max_position_embeddings": 64, "init_std": 0.3, "scale_embedding": True,
        "bos_token_id": 1, "forced_eos_token_id": None,
    }  # fmt: skip
    return BartForConditionalGeneration(BartConfig(**{**sizes, **SPECIAL, **changes}))


def _t5_config(**changes: Any) -> T5Config:
    return T5Config(
        vocab_size=VOCAB, d_model=16, d_kv=4, d_ff=24, num_layers=ENCODER_LAYERS,
        num_decoder_layers=DECODER_LAYERS, num_heads=2, **SPECIAL, **changes,
    )  # fmt: skip


def tiny_t5() -> PreTrainedModel:
    return T5ForConditionalGeneration(_t5_config())


def tiny_flan() -> PreTrainedModel:
    """T5 v1.1: gated, its head untied and its decoder outputs unscaled."""
    config = _t5_config(feed_forward_proj="gated-gelu")
    config.tie_word_embeddings = False  # the constructor forces both to True
    config.scale_decoder_outputs = False
    model = T5ForConditionalGeneration(config)
    for stack in (model.encoder, model.decoder):  # as in every checkpoint: one embedding
        stack.embed_tokens.weight = model.shared.weight
    return model


@pytest.fixture(params=[tiny_bart, tiny_t5, tiny_flan], ids=["bart", "t5", "flan"])
def teacher_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = request.param().eval()
    for bias in (p for name, p in model.named_parameters() if "bias" in name):
        torch.nn.init.normal_(bias, std=0.1)  # biases of 0 would hide a lost one
    return model


@pytest.fixture
def make_bart() -> Callable[..., PreTrainedModel]:
    def make(**changes: Any) -> PreTrainedModel:
        torch.manual_seed(0)
        return tiny_bart(**changes)

    return make


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    """Three rows, the last one padded."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCAB, (3, 6), generator=generator)
    ids[2, 4:] = 0
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "decoder_input_ids": torch.randint(3, VOCAB, (3, 5), generator=generator),
    }
