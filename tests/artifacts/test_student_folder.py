"""The folder student/ with learned quantizers: what plain transformers sees, what comes back."""

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedModel

from dq_lightning.artifacts.student_folder import QUANTIZERS, load_quantizers, save_student
from dq_lightning.models.bart import FAMILY
from dq_lightning.quantization.lsq import LsqQuantizer
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.quantization.symmetric import SymmetricQuantizer

ROWS = partial(LsqQuantizer, bits=3, granularity="per_row")
LEARNED = QuantizationRecipe(ROWS, ROWS, *[partial(LsqQuantizer, bits=8, activation=True)] * 2)
DYNAMIC = partial(SymmetricQuantizer, bits=4, granularity="per_row")
COMPUTED = QuantizationRecipe(DYNAMIC, DYNAMIC, DYNAMIC, DYNAMIC)
IDS = torch.tensor([[5, 6, 7, 8]])


def built() -> PreTrainedModel:
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=12, decoder_ffn_dim=12, init_std=0.3,
        max_position_embeddings=16, forced_eos_token_id=None,
    )  # fmt: skip
    return BartForConditionalGeneration(config)


def trained(recipe: QuantizationRecipe) -> PreTrainedModel:
    student = built()
    prepare(student, recipe, FAMILY)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    student.train()(input_ids=IDS, labels=IDS).loss.backward()
    optimizer.step()
    return student.eval()


def logits(student: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return student(input_ids=IDS, decoder_input_ids=IDS).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_student_with_learned_scales_comes_back(tmp_path: Path, dtype: torch.dtype) -> None:
    student = trained(LEARNED).to(dtype)  # pyright: ignore[reportArgumentType]
    save_student(student, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "quantizer" in name]  # noqa: SIM118
    loaded, seen = BartForConditionalGeneration.from_pretrained(
        tmp_path, dtype=dtype, output_loading_info=True
    )
    assert not seen["unexpected_keys"] and not seen["missing_keys"]
    prepare(loaded, LEARNED, FAMILY)
    assert not torch.equal(logits(loaded.eval()), logits(student))
    load_quantizers(loaded, tmp_path)
    assert torch.equal(logits(loaded), logits(student))


def test_a_student_without_has_no_second_file(tmp_path: Path) -> None:
    student = trained(COMPUTED)
    save_student(student, tmp_path)
    assert not (tmp_path / QUANTIZERS).exists()
    loaded = BartForConditionalGeneration.from_pretrained(tmp_path)
    prepare(loaded, COMPUTED, FAMILY)
    load_quantizers(loaded, tmp_path)
    assert torch.equal(logits(loaded.eval()), logits(student))
    other = built()
    prepare(other, LEARNED, FAMILY)
    with pytest.raises(ValueError, match=r"quantizers\.safetensors: the saved quantizers lack"):
        load_quantizers(other, tmp_path)
