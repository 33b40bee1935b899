"""Tiny packed students of every family."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from transformers import PreTrainedModel

from dq_lightning.artifacts.packed_student import PackedStudent, pack_student
from dq_lightning.choices import build_recipe
from dq_lightning.models.family import family_of
from dq_lightning.quantization.prepare import prepare

CONF = Path(__file__).parents[2] / "conf"


def _tiny_models():
    path = Path(__file__).parents[1] / "models" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TINY = _tiny_models()


@pytest.fixture(params=TINY.BUILDERS.keys())
def family_name(request: pytest.FixtureRequest) -> str:
    """Give the name of each tiny model."""
    return request.param


@pytest.fixture(scope="session")
def student() -> Callable[..., PreTrainedModel]:
    """Give a builder of prepared students in eval mode, whose learned scales have seen a batch."""

    def build(name: str, *overrides: str, **sizes: object) -> PreTrainedModel:
        torch.manual_seed(0)
        model = TINY.BUILDERS[name](**sizes)
        for bias in (p for key, p in model.named_parameters() if "bias" in key):
            torch.nn.init.normal_(bias, std=0.1)  # biases of 0 would hide a lost one
        with initialize_config_dir(str(CONF), version_base="1.3"):
            recipe = build_recipe(compose("train", list(overrides)).quant)
        prepare(model, recipe, family_of(model.config))
        ids = torch.randint(3, TINY.VOCAB, (3, 6))
        model.train()(input_ids=ids, decoder_input_ids=ids)
        return model.eval().requires_grad_(False)

    return build


@pytest.fixture(scope="session")
def packed() -> Callable[..., PackedStudent]:
    """Give a function that packs a prepared student."""

    def pack(model: PreTrainedModel, **options: object) -> PackedStudent:
        return pack_student(model, family_of(model.config), **options)

    return pack


@pytest.fixture
def sources() -> list[list[int]]:
    """Sources of different lengths, without padding."""
    generator = torch.Generator().manual_seed(1)
    lengths = (7, 3, 5)
    return [
        torch.randint(3, TINY.VOCAB, (length,), generator=generator).tolist() for length in lengths
    ]
