"""The recipe's linear layer and token embedding: values and gradients.

float64 to 1e-9. float32 to a few of its own steps: products are summed in another order.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from dq_lightning.choices import build_recipe
from dq_lightning.models import bart
from dq_lightning.quantization.fake_quantizer import Granularity
from dq_lightning.quantization.modules import FakeQuantizedEmbedding, ParameterQuantizer
from dq_lightning.quantization.prepare import prepare

PAD = 1
DTYPES = {"f64": torch.float64, "f32": torch.float32}
TOLERANCES = {"f64": 1e-9, "f32": 1e-5}
Vectors = dict[str, np.ndarray[Any, Any]]
Recipe = Callable[..., DictConfig]


def prepared(module: nn.Module, cfg: DictConfig) -> nn.Module:
    """The layer, prepared as a part of any model; there is no attention to choose."""
    model = nn.Sequential(module)
    prepare(
        model, replace(build_recipe(cfg.quant), attention=None, probabilities=None), bart.FAMILY
    )
    assert type(model[0]) is not type(module)
    return model


def check(measured: dict[str, Tensor | None], vectors: Vectors, prefix: str, dtype: str) -> None:
    expected = {name: torch.from_numpy(vectors[f"{prefix}/{name}"]) for name in measured}
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(measured, expected, rtol=tolerance, atol=tolerance)


def test_linear(oracle_linear: tuple[Any, ...], dq_bart: Recipe) -> None:
    vectors, prefix, weight_bits, input_bits, dtype = oracle_linear
    given = {
        name: torch.from_numpy(vectors[f"linear/{name}"]).to(DTYPES[dtype])
        for name in ("weight", "bias", "x", "gradout")
    }
    linear = nn.Linear(*reversed(given["weight"].shape)).to(DTYPES[dtype])
    linear.load_state_dict({name: given[name] for name in ("weight", "bias")})
    model = prepared(linear, dq_bart(int(weight_bits), int(input_bits)))
    x = given["x"].requires_grad_()
    y = model(x)
    y.backward(given["gradout"])
    grads = {"grad_x": x.grad, "grad_weight": linear.weight.grad, "grad_bias": linear.bias.grad}
    check({"y": y, **grads}, vectors, prefix, dtype)


@pytest.mark.parametrize("shared", [False, True], ids=["rows_first", "whole_table"])
def test_embedding(shared: bool, oracle_embedding: tuple[Any, ...], dq_bart: Recipe) -> None:
    """Rows looked up before they are quantized, and after, as a head over the table needs it."""
    vectors, prefix, bits, dtype = oracle_embedding
    weight = torch.from_numpy(vectors["embedding/weight"]).to(DTYPES[dtype])
    ids = torch.from_numpy(vectors["embedding/ids"])
    embedding = nn.Embedding(*weight.shape, padding_idx=PAD).to(DTYPES[dtype])
    embedding.load_state_dict({"weight": weight})
    model = prepared(embedding, dq_bart(int(bits), 8))
    if shared:
        (table,) = model.children()
        assert isinstance(table, FakeQuantizedEmbedding)
        assert table.gather_first
        assert table.weight_quantizer.quantizer.granularity is Granularity.PER_ROW
        table.weight_quantizer = ParameterQuantizer(table.weight_quantizer.quantizer, shared=True)
        table.gather_first = False
    y = model(ids)
    y.backward(torch.from_numpy(vectors["embedding/gradout"]).to(DTYPES[dtype]))
    check({"y": y, "grad_weight": embedding.weight.grad}, vectors, prefix, dtype)
