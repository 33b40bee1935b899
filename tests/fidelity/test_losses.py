"""The eight loss terms of DQ-BART, and their totals, from the recorded outputs of both models."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor
from transformers.modeling_outputs import Seq2SeqLMOutput

from dq_lightning.distillation.loss import Loss
from dq_lightning.models.layer_mapping import LayerMapping

Vectors = Mapping[str, np.ndarray[Any, Any]]
OracleStudent = tuple[Vectors, Vectors, dict[str, Any]]
TOLERANCE = 1e-9

PUBLISHED_WEIGHTS = {"total": (1.0, 1.0, 1.0), "total_weighted": (1.0, 0.8, 3.0)}
"""Of the labels, the logits, and everything below them."""


def recorded(arrays: Vectors, prefix: str) -> Seq2SeqLMOutput:
    """The float64 outputs below `prefix`; `name/0`, `name/1`, ... become a tuple."""
    single: dict[str, Tensor] = {}
    layers: dict[str, dict[int, Tensor]] = {}
    for key, value in arrays.items():
        if key.startswith(prefix):
            name, _, number = key.removeprefix(prefix).partition("/")
            tensor = torch.from_numpy(value)
            if number:
                layers.setdefault(name, {})[int(number)] = tensor
            else:
                single[name] = tensor
    stacks = {name: tuple(found[i] for i in sorted(found)) for name, found in layers.items()}
    return Seq2SeqLMOutput(logits=single["logits"], **stacks)


@pytest.fixture
def outputs(
    oracle_student: OracleStudent,
) -> tuple[Seq2SeqLMOutput, Seq2SeqLMOutput, dict[str, Tensor]]:
    """Student, aligned teacher, and the batch."""
    given, made, entry = oracle_student
    mapping = LayerMapping(tuple(entry["enc_map"]), tuple(entry["dec_map"]))
    names = ("attention_mask", "labels")
    batch = {name: torch.from_numpy(given[f"batch/{name}"]) for name in names}
    teacher = mapping.select(recorded(given, "teacher_out/f64/"))
    return recorded(made, "out/f64/"), teacher, batch


def test_every_loss_term(
    oracle_student: OracleStudent, outputs: tuple[Any, Any, Any], loss_terms: dict[str, Loss]
) -> None:
    expected = oracle_student[2]["f64"]["losses"]
    measured = {name: loss(*outputs).item() for name, loss in loss_terms.items()}
    assert measured == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize("total", list(PUBLISHED_WEIGHTS))
def test_the_recipe_gives_the_total(
    total: str,
    oracle_student: OracleStudent,
    outputs: tuple[Any, Any, Any],
    dq_bart: Callable[..., DictConfig],
) -> None:
    task, logits, below = PUBLISHED_WEIGHTS[total]
    weights = {"task": task, "logits": logits}
    weights |= dict.fromkeys(("attention", "hidden", "last_encoder"), below)
    distill = dq_bart(8, 8, *(f"distill.weights.{n}={w}" for n, w in weights.items())).distill
    value = instantiate(distill)(*outputs).total.item()
    assert value == pytest.approx(oracle_student[2]["f64"][total], rel=TOLERANCE, abs=TOLERANCE)
