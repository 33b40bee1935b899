"""Tiny prepared students."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from dq_lightning.artifacts.packed_file import write_packed
from dq_lightning.artifacts.packed_student import PackedStudent, pack_student
from dq_lightning.choices import build_recipe
from dq_lightning.models.family import ModelFamily, family_of
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import QuantizationRecipe

CONF = Path(__file__).parents[2] / "conf"
BART = {
    "vocab_size": 53, "d_model": 20, "encoder_layers": 2, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 26,
    "decoder_ffn_dim": 26, "max_position_embeddings": 32, "init_std": 0.3,
}  # fmt: skip


def bart() -> PreTrainedModel:
    return BartForConditionalGeneration(BartConfig(**BART))


def marian() -> PreTrainedModel:
    tokens = {"pad_token_id": 0, "decoder_start_token_id": 0, "eos_token_id": 2}
    return MarianMTModel(MarianConfig(**BART, **tokens, forced_eos_token_id=2))


def t5() -> PreTrainedModel:
    sizes = {"vocab_size": 53, "d_model": 20, "d_kv": 6, "d_ff": 26, "num_heads": 3}
    return T5ForConditionalGeneration(T5Config(**sizes, num_layers=2, num_decoder_layers=1))


MODELS = {"bart": bart, "marian": marian, "t5": t5}
Student = Callable[..., tuple[PreTrainedModel, ModelFamily]]


@pytest.fixture(scope="session")
def recipe_of() -> Callable[..., QuantizationRecipe]:
    """Give a function of overrides of the config that builds their recipe."""

    def build(*overrides: str) -> QuantizationRecipe:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return build_recipe(compose("train", list(overrides)).quant)

    return build


@pytest.fixture(scope="session")
def student(recipe_of: Callable[..., QuantizationRecipe]) -> Student:
    """Give a function of a model's name and overrides of the config that prepares that model."""

    def build(model: str, *overrides: str) -> tuple[PreTrainedModel, ModelFamily]:
        recipe = recipe_of(*overrides)
        torch.manual_seed(5)
        prepared = MODELS[model]().eval()
        family = family_of(prepared.config)
        prepare(prepared, recipe, family)
        return prepared, family

    return build


@pytest.fixture(scope="session")
def packed(student: Student) -> PackedStudent:
    """Give a tiny student with everything that a file can hold."""
    prepared, family = student("bart", "quant.exclude=['*.fc2']")
    settings = {"num_beams": 3, "length_penalty": 1.5}
    text = {"max_source_length": 12, "source_prefix": "say: ", "source_language": None}
    files = {"tokenizer.json": b'{"a": "\xc3\xa9"}', "empty.txt": b""}
    return pack_student(prepared, family, generation=settings, text=text, files=files)


@pytest.fixture
def file(packed: PackedStudent, tmp_path: Path) -> Path:
    """Give the file of that student."""
    write_packed(tmp_path / "model.dq", packed)
    return tmp_path / "model.dq"
