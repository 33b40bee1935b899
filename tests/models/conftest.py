"""Tiny random models of every kind that a teacher can be, and their inputs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

ENCODER_LAYERS, DECODER_LAYERS, VOCAB = 4, 3, 70
SPECIAL = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 1}


BART_SIZES = {
    "vocab_size": VOCAB, "d_model": 16, "encoder_layers": ENCODER_LAYERS,
    "decoder_layers": DECODER_LAYERS, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
    "max_position_embeddings": 64, "init_std": 0.3, "scale_embedding": True,
    "bos_token_id": 1, "forced_eos_token_id": None,
}  # fmt: skip
T5_SIZES = {
    "vocab_size": VOCAB, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": ENCODER_LAYERS,
    "num_decoder_layers": DECODER_LAYERS, "num_heads": 2,
}  # fmt: skip


def tiny_bart(**changes: Any) -> PreTrainedModel:
    return BartForConditionalGeneration(BartConfig(**{**BART_SIZES, **SPECIAL, **changes}))


def tiny_mbart() -> PreTrainedModel:
    return MBartForConditionalGeneration(MBartConfig(**BART_SIZES, **SPECIAL))


def tiny_pegasus() -> PreTrainedModel:
    return PegasusForConditionalGeneration(PegasusConfig(**BART_SIZES, **SPECIAL))


def tiny_marian() -> PreTrainedModel:
    return MarianMTModel(MarianConfig(**BART_SIZES, **SPECIAL))


def tiny_bilingual_marian() -> PreTrainedModel:
    """Two vocabularies: the head is tied to the decoder's embedding, not to the encoder's."""
    apart = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": VOCAB + 6}
    return MarianMTModel(MarianConfig(**{**BART_SIZES, **SPECIAL, **apart}))


def tiny_m2m100() -> PreTrainedModel:
    """Layer dropout as its checkpoints have it; the position table of NLLB."""
    return M2M100ForConditionalGeneration(M2M100Config(**BART_SIZES, **SPECIAL))


def tiny_t5() -> PreTrainedModel:
    return T5ForConditionalGeneration(T5Config(**T5_SIZES, **SPECIAL))


def tiny_flan() -> PreTrainedModel:
    """T5 v1.1: gated, its head untied and its decoder outputs unscaled."""
    config = T5Config(**T5_SIZES, **SPECIAL, feed_forward_proj="gated-gelu")
    config.tie_word_embeddings = False  # the constructor forces both to True
    config.scale_decoder_outputs = False
    return _with_one_embedding(T5ForConditionalGeneration(config))


def tiny_mt5() -> PreTrainedModel:
    """Untied, as the released checkpoints."""
    config = MT5Config(**T5_SIZES, **SPECIAL)
    config.tie_word_embeddings = False  # the constructor forces it to True
    return _with_one_embedding(MT5ForConditionalGeneration(config))


def _with_one_embedding(model: Any) -> PreTrainedModel:
    for stack in (model.encoder, model.decoder):  # as in every checkpoint
        stack.embed_tokens.weight = model.shared.weight
    return model


BUILDERS = {
    "bart": tiny_bart,
    "mbart": tiny_mbart,
    "pegasus": tiny_pegasus,
    "marian": tiny_marian,
    "bilingual_marian": tiny_bilingual_marian,
    "m2m100": tiny_m2m100,
    "t5": tiny_t5,
    "flan": tiny_flan,
    "mt5": tiny_mt5,
}


@pytest.fixture(params=BUILDERS.values(), ids=BUILDERS.keys())
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
