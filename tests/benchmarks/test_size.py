"""Sizes against the published numbers of BART-base."""

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, T5Config
from transformers import T5ForConditionalGeneration as T5

from dq_lightning.benchmarks.size import NominalSize, nominal_bytes
from dq_lightning.models import bart, t5
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import QuantizationRecipe, parse_bits
from dq_lightning.quantization.ternary import ternary_or_symmetric

TEACHER = 557_681_664


def bart_base(encoder_layers: int, decoder_layers: int) -> BartForConditionalGeneration:
    config = BartConfig(
        vocab_size=50265, d_model=768, encoder_layers=encoder_layers, decoder_layers=decoder_layers,
        encoder_attention_heads=12, decoder_attention_heads=12, encoder_ffn_dim=3072,
        decoder_ffn_dim=3072, max_position_embeddings=1024,
    )  # fmt: skip
    with torch.device("meta"):
        return BartForConditionalGeneration(config)


def size(bits: object, encoder_layers: int, decoder_layers: int) -> NominalSize:
    return nominal_bytes(bart_base(encoder_layers, decoder_layers), parse_bits(bits), bart.FAMILY)


def test_teacher() -> None:
    sizes = size("32-32-32", 6, 6)
    assert sizes == NominalSize(TEACHER, TEACHER, TEACHER)


@pytest.mark.parametrize(
    ("layers", "two_bits", "eight_bits", "ratio"),
    [
        ((6, 6), 41_329_344, 144_599_808, 13.62),
        ((6, 3), 34_076_352, 116_113_152, 16.50),
        ((6, 1), 29_241_024, 97_122_048, 19.20),
        ((3, 1), 23_812_800, 75_768_576, 23.53),
        ((1, 1), 20_193_984, 61_532_928, 27.70),
    ],
)
def test_published_sizes(
    layers: tuple[int, int], two_bits: int, eight_bits: int, ratio: float
) -> None:
    sizes = size("2-2-8", *layers)
    assert sizes.reference_rule_bytes == two_bits
    assert size("8-8-8", *layers).reference_rule_bytes == eight_bits
    assert round(TEACHER / sizes.published_bytes, 2) == ratio


def test_prepared_model_counts_the_same() -> None:
    model, bits = bart_base(1, 1), parse_bits("2-2-8")
    before = nominal_bytes(model, bits, bart.FAMILY)

    def quantizer():
        return ternary_or_symmetric(2, "per_row")

    prepare(model, QuantizationRecipe(quantizer, quantizer, None, None), bart.FAMILY)
    assert nominal_bytes(model, bits, bart.FAMILY) == before


def test_excluded_modules_and_untied_heads() -> None:
    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    with torch.device("meta"):
        tied = T5(config)
        untied = T5(config)
        untied.lm_head.weight = torch.nn.Parameter(torch.empty(64, 16))
    bits = parse_bits(2)
    one = nominal_bytes(tied, bits, t5.FAMILY).published_bytes
    assert nominal_bytes(untied, bits, t5.FAMILY).published_bytes == one + 64 * 16 * 2 // 8
    excluded = nominal_bytes(tied, bits, t5.FAMILY, ("*.wi",)).published_bytes
    assert excluded == one + 2 * 16 * 32 * 30 // 8
