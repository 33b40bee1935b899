"""Teacher and student of the recipe, live: initialisation, outputs, losses, gradients, training.

All in float64 to 1e-9. In float32 one activation on the other side of a rounding step moves a
tiny model's losses by a thousandth, so there is nothing exact to compare.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from dq_lightning.choices import build_recipe, chosen_layers
from dq_lightning.distillation.loss import ATTENTIONS, HIDDEN_STATES, Loss
from dq_lightning.models.bart import FAMILY
from dq_lightning.models.layer_mapping import LayerMapping, dq_bart_mapping, layer_mapping
from dq_lightning.models.student import student_from_teacher
from dq_lightning.models.teacher import Teacher
from dq_lightning.quantization.prepare import prepare
from dq_lightning.training.parameter_groups import parameter_groups

Vectors = Mapping[str, np.ndarray[Any, Any]]
Batch = dict[str, Tensor]
EVERYTHING = (HIDDEN_STATES, ATTENTIONS)
TOLERANCE = 1e-9
WEIGHTED = {"logits": 0.8, "attention": 3, "hidden": 3, "last_encoder": 3}
"""The second published weighting; the first is 1 for all."""


def below(vectors: Vectors, prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): torch.from_numpy(value)
        for key, value in vectors.items()
        if key.startswith(prefix)
    }


def assert_close(measured: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(measured, expected, rtol=tolerance, atol=tolerance)


def teacher_of(vectors: Vectors) -> PreTrainedModel:
    """BART of the sizes of the recorded weights; heads are counted in the recorded maps."""
    weights = below(vectors, "teacher/")
    vocab_size, d_model = weights["model.shared.weight"].shape
    config: dict[str, Any] = {"vocab_size": vocab_size, "d_model": d_model}
    for stack in ("encoder", "decoder"):
        prefix = f"model.{stack}.layers."
        layers = {key.removeprefix(prefix).split(".")[0] for key in weights if prefix in key}
        config[f"{stack}_layers"] = len(layers)
        config[f"{stack}_ffn_dim"] = weights[f"{prefix}0.fc1.weight"].shape[0]
        heads = vectors[f"teacher_out/f64/{stack}_attentions/0"].shape[1]
        config[f"{stack}_attention_heads"] = heads
    positions = weights["model.encoder.embed_positions.weight"].shape[0] - 2
    model = BartForConditionalGeneration(BartConfig(**config, max_position_embeddings=positions))
    own = model.state_dict()
    assert weights.keys() >= own.keys()
    model.load_state_dict({key: weights[key] for key in own})
    model.set_attn_implementation("eager")
    return model.eval()


def outputs_of(model: Any, batch: Batch) -> Seq2SeqLMOutput:
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return model(**inputs, output_hidden_states=True, output_attentions=True, use_cache=False)


def recorded_names(outputs: Seq2SeqLMOutput) -> dict[str, Tensor]:
    """The outputs under the names of the vectors: name, or name/layer."""
    named: dict[str, Tensor] = {}
    for name, value in outputs.items():
        if isinstance(value, Tensor):
            named[name] = value.detach()
        else:
            named |= {f"{name}/{i}": tensor.detach() for i, tensor in enumerate(value)}
    return named


@dataclass
class Distillation:
    """What a run of the recipe is made of, from the teacher's recorded weights."""

    given: Vectors
    recorded: Vectors
    entry: dict[str, Any]
    cfg: DictConfig
    settle_ties: Any

    @cached_property
    def mapping(self) -> LayerMapping:
        chosen = self.cfg.student
        return layer_mapping(
            chosen_layers(chosen),
            FAMILY.num_layers(self.teacher_model.config),
            chosen.encoder_mapping,
            chosen.decoder_mapping,
            chosen.mapping,
        )

    @cached_property
    def teacher_model(self) -> PreTrainedModel:
        return teacher_of(self.given)

    @cached_property
    def initial(self) -> PreTrainedModel:
        dropout = self.cfg.student.dropout
        return student_from_teacher(self.teacher_model, FAMILY, self.mapping, dropout)

    @cached_property
    def student(self) -> Any:
        prepare(self.initial, build_recipe(self.cfg.quant), FAMILY)
        return self.initial.double().train()

    @cached_property
    def teacher(self) -> Teacher:
        self.initial  # noqa: B018  # made of the float32 weights
        return Teacher(self.teacher_model.double(), self.mapping)

    def batch(self, name: str) -> Batch:
        return below(self.given, f"{name}/")

    def first_outputs(self) -> tuple[Seq2SeqLMOutput, Seq2SeqLMOutput, Batch]:
        """Those of the initial student for the first batch."""
        logits = torch.from_numpy(self.recorded["out/f64/logits"])
        return self.settle_ties(
            lambda: self.outputs("batch"),
            lambda found: found[0].logits.allclose(logits, TOLERANCE, TOLERANCE),
        )

    def outputs(self, name: str) -> tuple[Seq2SeqLMOutput, Seq2SeqLMOutput, Batch]:
        """Student, aligned teacher, and the batch."""
        batch = self.batch(name)
        student = outputs_of(self.student, batch)
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return student, self.teacher(inputs, EVERYTHING), batch


@pytest.fixture
def distillation(
    oracle_student: Any, dq_bart: Callable[..., DictConfig], settle_ties: Any
) -> Distillation:
    given, recorded, entry = oracle_student
    sites = ("weight", "embedding", "activation", "attention")
    cfg = dq_bart(
        entry["weight_bits"],
        entry["input_bits"],
        f"student.layers={entry['enc']}-{entry['dec']}",
        f"student.encoder_mapping={entry['enc_map']}",
        f"student.decoder_mapping={entry['dec_map']}",
        f"optimizer.lr={entry['lr']}",
        *(f"quant.{site}.quantizer.clip={entry['clip_val']}" for site in sites),
    )
    return Distillation(given, recorded, entry, cfg, settle_ties)


def test_the_teacher(oracle_teacher: Vectors) -> None:
    model = teacher_of(oracle_teacher)
    batch = below(oracle_teacher, "batch/")
    single = outputs_of(model, batch).logits
    # Nothing is rounded to a grid in a teacher, so float32 is exact to its own accuracy.
    assert_close(single, torch.from_numpy(oracle_teacher["teacher_out/f32/logits"]), 1e-4)
    outputs = outputs_of(model.double(), batch)
    expected = below(oracle_teacher, "teacher_out/f64/")
    task_loss = expected.pop("task_loss")
    assert_close(recorded_names(outputs), expected)
    logits, labels = outputs.logits.flatten(0, 1), batch["labels"].flatten()
    assert_close(torch.nn.functional.cross_entropy(logits, labels), task_loss)


def test_labels_are_shifted_as_recorded(distillation: Distillation) -> None:
    for name in ("batch", "batch2"):
        batch = distillation.batch(name)
        shifted = distillation.initial.prepare_decoder_input_ids_from_labels(batch["labels"])
        assert torch.equal(shifted, batch["decoder_input_ids"])


def test_the_initialisation(distillation: Distillation) -> None:
    """Bit for bit, and every other recorded tensor is a clip value of the reference's modules."""
    expected = below(distillation.recorded, "init/")
    weights = distillation.initial.state_dict()
    assert all("clip" in key for key in expected.keys() - weights.keys())
    assert_close(weights, {key: expected[key] for key in weights}, 0.0)
    head, table = (
        distillation.initial.get_parameter(f"{name}.weight") for name in ("lm_head", "model.shared")
    )
    assert (head is table) == distillation.entry["tied_lm_head"]


def test_the_published_maps_are_the_defaults(distillation: Distillation) -> None:
    entry = distillation.entry
    if entry["teacher_layers"] != 6:
        pytest.skip("published for teachers of six layers")
    assert dq_bart_mapping(entry["enc"], 6) == tuple(entry["enc_map"])
    alternative = [(0,)] if entry["dec"] == 1 else []  # student.decoder_mapping=[0]
    assert tuple(entry["dec_map"]) in [dq_bart_mapping(entry["dec"], 6), *alternative]


def test_the_outputs(distillation: Distillation) -> None:
    outputs, _, _ = distillation.first_outputs()
    assert_close(recorded_names(outputs), below(distillation.recorded, "out/f64/"))


def test_every_loss_term_and_both_totals(
    distillation: Distillation, loss_terms: dict[str, Loss]
) -> None:
    outputs = distillation.first_outputs()
    expected = distillation.entry["f64"]
    measured = {name: loss(*outputs).item() for name, loss in loss_terms.items()}
    assert measured == pytest.approx(expected["losses"], rel=TOLERANCE, abs=TOLERANCE)
    objective = instantiate(distillation.cfg.distill)
    assert objective(*outputs).total.item() == pytest.approx(expected["total"], rel=TOLERANCE)
    weights = {**distillation.cfg.distill.weights, **WEIGHTED}
    weighted = instantiate(distillation.cfg.distill, weights=weights)(*outputs).total.item()
    assert weighted == pytest.approx(expected["total_weighted"], rel=TOLERANCE)


def test_the_gradients(distillation: Distillation) -> None:
    """Norms, which every entry has, and the gradients of the files that hold them."""
    objective = instantiate(distillation.cfg.distill)
    objective(*distillation.first_outputs()).total.backward()
    grads = {name: p.grad for name, p in distillation.student.named_parameters()}
    norms = {name: grad.norm().item() for name, grad in grads.items()}
    entry = distillation.entry
    assert norms == pytest.approx(entry["grad_norm_per_param_f64"], rel=TOLERANCE, abs=TOLERANCE)
    whole = torch.nn.utils.get_total_norm(grads.values()).item()
    assert whole == pytest.approx(entry["f64"]["grad_norm"], rel=TOLERANCE)
    expected = below(distillation.recorded, "grad/f64/")
    assert_close({name: grads[name] for name in expected}, expected)


def test_the_training(distillation: Distillation, loss_terms: dict[str, Loss]) -> None:
    """Every term before each step, and the weights after the first where they are recorded."""
    objective = instantiate(distillation.cfg.distill)
    optimizer = instantiate(distillation.cfg.optimizer)(parameter_groups(distillation.student))
    trajectory = torch.from_numpy(distillation.recorded["trajectory/f64"])
    first = below(distillation.recorded, "after_step1/f64/")
    columns = distillation.entry["trajectory_columns"]

    def terms_of(outputs: Any) -> Tensor:
        total = objective(*outputs).total
        terms = {name: loss(*outputs) for name, loss in loss_terms.items()} | {"total": total}
        return torch.stack([terms[name] for name in columns])

    for step, expected in enumerate(trajectory):
        name = ("batch", "batch2")[step % 2]
        outputs = distillation.settle_ties(
            partial(distillation.outputs, name),
            lambda found, row=expected: terms_of(found).allclose(row, TOLERANCE, TOLERANCE),
        )
        assert_close(terms_of(outputs).detach(), expected)
        total = objective(*outputs).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if step == 0:
            weights = distillation.student.state_dict()
            assert_close({name: weights[name] for name in first}, first)


def test_decoding_token_by_token(distillation: Distillation) -> None:
    """Every scale is a maximum over what is present in the call: not the logits of one forward."""
    expected = distillation.recorded.get("incremental/f64/logits")
    if expected is None:
        pytest.skip("the file has no incremental logits")
    student, batch = distillation.student.eval(), distillation.batch("batch")
    mask, logits, cache = batch["attention_mask"], [], None
    with torch.no_grad():
        encoded = student.get_encoder()(input_ids=batch["input_ids"], attention_mask=mask)
        for token in batch["decoder_input_ids"].split(1, dim=1):
            output = student(
                encoder_outputs=BaseModelOutput(encoded.last_hidden_state),
                attention_mask=mask,
                decoder_input_ids=token,
                past_key_values=cache,
                use_cache=True,
            )
            logits.append(output.logits)
            cache = output.past_key_values
        whole = student(**{name: value for name, value in batch.items() if name != "labels"}).logits
    steps = torch.cat(logits, 1)
    assert_close(steps, torch.from_numpy(expected))
    apart = distillation.entry["incremental_vs_full_max_abs"]
    assert (steps - whole).abs().max().item() == pytest.approx(apart, rel=TOLERANCE)
