"""Tiny models and recipes."""

from collections.abc import Callable
from functools import partial

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

from dq_lightning.models import bart, t5
from dq_lightning.models.family import ModelFamily
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.quantization.symmetric import SymmetricQuantizer
from dq_lightning.quantization.ternary import ternary_or_symmetric


def tiny_bart() -> PreTrainedModel:
    """BART with an embed_scale other than 1 and weights wide enough to matter."""
    config = BartConfig(
        vocab_size=40, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, init_std=0.3,
        max_position_embeddings=32, scale_embedding=True, forced_eos_token_id=None,
    )  # fmt: skip
    return BartForConditionalGeneration(config)


def tiny_t5() -> PreTrainedModel:
    """T5 with head width other than d_model / heads, gated as flan-T5."""
    config = T5Config(
        vocab_size=40, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0, eos_token_id=39,
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


@pytest.fixture(params=[(tiny_bart, bart.FAMILY), (tiny_t5, t5.FAMILY)], ids=["bart", "t5"])
def built(request: pytest.FixtureRequest) -> tuple[Callable[[], PreTrainedModel], ModelFamily]:
    """Give a function that builds the same model each time, and its family."""
    build, family = request.param

    def seeded() -> PreTrainedModel:
        torch.manual_seed(3)
        model = build().eval()
        model.set_attn_implementation("eager")  # what ours equals bit for bit; sdpa does not
        return model

    return seeded, family


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Three rows, two of them padded."""
    torch.manual_seed(5)
    ids = torch.randint(4, 39, (3, 7))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    mask[2, 6:] = 0
    return {
        "input_ids": ids.masked_fill(mask == 0, 1),
        "attention_mask": mask,
        "decoder_input_ids": torch.randint(4, 39, (3, 5)),
    }


@pytest.fixture
def recipe() -> Callable[..., QuantizationRecipe]:
    """Give a builder of the default recipe at some bits."""

    def build(bits: int = 2, activation_bits: int = 8, **changes: object) -> QuantizationRecipe:
        sites = {
            "weight": partial(ternary_or_symmetric, bits, "per_row"),
            "embedding": partial(ternary_or_symmetric, bits, "per_row"),
            "activation": partial(SymmetricQuantizer, activation_bits, "per_token"),
            "attention": partial(SymmetricQuantizer, activation_bits, "per_token"),
        }
        return QuantizationRecipe(**{**sites, **changes})

    return build
