"""The eight loss terms of DQ-BART, and their totals, from the recorded outputs of both models."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor
from transformers.modeling_outputs import Seq2SeqLMOutput

from dq_lightning.distillation.attention_mse import AttentionMSELoss
from dq_lightning.distillation.cross_entropy import CrossEntropyLoss
from dq_lightning.distillation.hidden_state_mse import HiddenStateMSELoss
from dq_lightning.distillation.last_encoder_mse import LastEncoderMSELoss
from dq_lightning.distillation.logits_mse import LogitsMSELoss
from dq_lightning.distillation.loss import Loss
from dq_lightning.distillation.objective import Objective
from dq_lightning.models.layer_mapping import LayerMapping

CONF = Path(__file__).parents[2] / "conf"
OracleStudent = tuple[Path, str, dict[str, Any]]
TOLERANCE = 1e-9

TERMS: dict[str, Loss] = {
    "task": CrossEntropyLoss(),
    "logits": LogitsMSELoss(mask="none"),
    "enc_att": AttentionMSELoss(True, False, False, mask="none"),
    "dec_att": AttentionMSELoss(False, True, False, mask="none"),
    "crs_att": AttentionMSELoss(False, False, True, mask="none"),
    "enc_hid": HiddenStateMSELoss(True, False, mask="none"),
    "enc_hid_last": LastEncoderMSELoss(mask="none", reduction_over_batch="sum"),
    "dec_hid": HiddenStateMSELoss(False, True, mask="none"),
}
PUBLISHED_WEIGHTS = {"total": (1.0, 1.0, 1.0), "total_weighted": (1.0, 0.8, 3.0)}
"""Of the labels, the logits, and everything below them."""


def recorded(arrays: Any, prefix: str) -> Seq2SeqLMOutput:
    """The float64 outputs below `prefix`; `name/0`, `name/1`, ... become a tuple."""
    single: dict[str, Tensor] = {}
    layers: dict[str, dict[int, Tensor]] = {}
    for key in arrays.files:
        if key.startswith(prefix):
            name, _, number = key.removeprefix(prefix).partition("/")
            tensor = torch.from_numpy(arrays[key])
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
    folder, group, entry = oracle_student
    arrays = np.load(folder / f"{group}_teacher_and_batch.npz")
    mapping = LayerMapping(tuple(entry["enc_map"]), tuple(entry["dec_map"]))
    names = ("attention_mask", "labels")
    batch = {name: torch.from_numpy(arrays[f"batch/{name}"]).long() for name in names}
    teacher = mapping.select(recorded(arrays, "teacher_out/f64/"))
    return recorded(np.load(folder / entry["file"]), "out/f64/"), teacher, batch


def test_every_loss_term(oracle_student: OracleStudent, outputs: tuple[Any, Any, Any]) -> None:
    expected = oracle_student[2]["f64"]["losses"]
    measured = {name: loss(*outputs).item() for name, loss in TERMS.items()}
    assert measured == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)


@cache
def recipe(total: str) -> Objective:
    """`distill=dq_bart` with the published weights of `total`."""
    task, logits, below = PUBLISHED_WEIGHTS[total]
    weights = {"task": task, "logits": logits}
    weights |= dict.fromkeys(("attention", "hidden", "last_encoder"), below)
    changes = [f"distill.weights.{name}={weight}" for name, weight in weights.items()]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose("train", ["distill=dq_bart", *changes]).distill)


@pytest.mark.parametrize("total", list(PUBLISHED_WEIGHTS))
def test_the_recipe_gives_the_total(
    total: str, oracle_student: OracleStudent, outputs: tuple[Any, Any, Any]
) -> None:
    value = recipe(total)(*outputs).total.item()
    assert value == pytest.approx(oracle_student[2]["f64"][total], rel=TOLERANCE, abs=TOLERANCE)
