"""A dequantized student is the fake-quantized one where activations are float."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from transformers import BartConfig, M2M100Config, MarianConfig, T5Config

from dq_lightning.artifacts.dequantized import dequantized_model, resident_bytes
from dq_lightning.artifacts.packed_student import pack_student
from dq_lightning.choices import build_recipe
from dq_lightning.models.family import family_of
from dq_lightning.quantization.prepare import prepare

CONF = Path(__file__).parents[2] / "conf"
SIZES = {
    "vocab_size": 53, "d_model": 20, "encoder_layers": 2, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 26,
    "decoder_ffn_dim": 26, "max_position_embeddings": 32, "init_std": 0.3,
}  # fmt: skip
T5 = {
    "vocab_size": 53, "d_model": 20, "d_kv": 6, "d_ff": 26, "num_heads": 3, "num_layers": 2,
    "decoder_start_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "bart": BartConfig(**SIZES, scale_embedding=True),
    "marian": MarianConfig(**SIZES, pad_token_id=52, decoder_start_token_id=52),
    "m2m100": M2M100Config(**SIZES, decoder_start_token_id=2),
    "t5": T5Config(**T5),
    "flan": T5Config(**T5, feed_forward_proj="gated-gelu"),
}


@pytest.mark.parametrize("head", ["tied", "fp", "int8"])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_bit_for_bit(name, head):
    torch.manual_seed(5)
    config = CONFIGS[name]
    if name == "flan":  # its config says so, and its class another thing
        config.tie_word_embeddings = config.scale_decoder_outputs = False
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["quant.bits=4-4-32", f"quant.head={head}"])
    family = family_of(config)
    model = family.model_class(config).eval()
    prepare(model, build_recipe(cfg.quant), family)
    found = dequantized_model(pack_student(model, family, positions_bits=32))
    inputs = {
        "input_ids": torch.tensor([[5, 9, 13, 20, 7, 33, 2]]),
        "decoder_input_ids": torch.tensor([[2, 4, 5, 6, 9]]),
    }
    with torch.no_grad():
        logits, expected = found(**inputs).logits, model(**inputs).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)
    assert found.config.tie_word_embeddings == config.tie_word_embeddings
    assert found.generation_config.decoder_start_token_id == config.decoder_start_token_id
    own_head = head != "tied" and name != "flan"  # flan's has one from the start
    table = 4 * 53 * 20
    assert resident_bytes(found) == resident_bytes(model) + table * own_head - learned(model)


def learned(model):
    """Bytes of learned scales."""
    return sum(4 * p.numel() for name, p in model.named_parameters() if "quantizer" in name)
