"""The objective: weights, names, what it requires, and its configs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from dq_lightning.distillation.attention_mse import AttentionMSELoss
from dq_lightning.distillation.cross_entropy import CrossEntropyLoss
from dq_lightning.distillation.hidden_state_mse import HiddenStateMSELoss
from dq_lightning.distillation.logits_mse import LogitsMSELoss
from dq_lightning.distillation.objective import Objective

CONF = Path(__file__).parents[2] / "conf"
DISTILL = sorted(path.stem for path in (CONF / "distill").glob("*.yaml"))


def losses() -> dict:
    return {"task": CrossEntropyLoss(), "logits": LogitsMSELoss(), "attention": AttentionMSELoss()}


def test_total_is_the_weighted_sum_of_its_parts(make_sample: Callable) -> None:
    sample = make_sample()
    weights = {"task": 2.0, "logits": 0.5, "attention": 3.0}
    output = Objective(losses(), weights)(sample.student, sample.teacher, sample.batch)
    assert list(output.parts) == list(weights)
    for name, loss in losses().items():
        expected = loss(sample.student, sample.teacher, sample.batch)
        assert output.parts[name] == expected and not output.parts[name].requires_grad
    expected = sum(weights[name] * part for name, part in output.parts.items())
    torch.testing.assert_close(output.total, expected)
    output.total.backward()
    assert sample.student.logits.grad is not None


def test_zero_weight_is_neither_computed_nor_required(make_sample: Callable) -> None:
    sample = make_sample()
    sample.student.encoder_attentions = None
    objective = Objective(losses(), {"task": 1, "logits": 0, "attention": 0})
    assert objective.requires == frozenset() and not objective.needs_teacher
    assert list(objective(sample.student, None, sample.batch).parts) == ["task"]


def test_a_weight_fades_in_a_straight_line(make_sample: Callable) -> None:
    sample = make_sample()
    inputs = sample.student, sample.teacher, sample.batch
    weights = {"task": 2.0, "logits": 0.5, "attention": 3.0}
    plain = Objective(losses(), weights)
    fading = Objective(losses(), weights, {"attention": 0.8, "logits": None})
    for progress, left in [(0.0, 3.0), (0.2, 2.25), (0.4, 1.5), (0.8, 0.0), (1.0, 0.0)]:
        output = fading(*inputs, progress)
        parts = plain(*inputs).parts
        assert output.parts == parts  # as computed, also once it has faded
        expected = 2.0 * parts["task"] + 0.5 * parts["logits"] + left * parts["attention"]
        torch.testing.assert_close(output.total, expected)
    assert fading.requires == plain.requires
    output.total.backward()  # what has faded leaves a gradient of 0, which DDP waits for
    assert all(not a.grad.any() for a in sample.student.encoder_attentions)


@pytest.mark.parametrize(
    ("fade", "message"),
    [
        ({"hiden": 0.5}, r"distill.fade.hiden belongs to no loss.*~distill.fade.hiden"),
        ({"task": 0.0}, r"distill.fade.task=0.0 must be a fraction.*such as 0.7"),
        ({"task": 1.5}, r"distill.fade.task=1.5 must be a fraction"),
        ({"task": float("nan")}, r"distill.fade.task=nan must be a fraction"),
        ({"task": True}, r"distill.fade.task=True must be a fraction"),
        ({"task": "late"}, r"distill.fade.task=late must be a fraction"),
    ],
)
def test_bad_fades_raise_one_sentence(fade: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(losses(), {"task": 1.0, "logits": 1.0, "attention": 1.0}, fade)


def test_requirements_are_united() -> None:
    terms = {"a": AttentionMSELoss(), "h": HiddenStateMSELoss(), "t": CrossEntropyLoss()}
    objective = Objective(terms, {"a": 1.0, "h": 1.0, "t": 1.0})
    assert objective.requires == {"attentions", "hidden_states"} and objective.needs_teacher


def test_a_missing_teacher_raises(make_sample: Callable) -> None:
    sample = make_sample()
    objective = Objective(losses(), {"task": 1.0, "logits": 1.0, "attention": 1.0})
    with pytest.raises(ValueError, match=r"logits, attention need a teacher.*labels_only"):
        objective(sample.student, None, sample.batch)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"task": 1.0, "logits": 1.0}, r"without a weight: \['attention'\]"),
        ({"task": 1, "logits": 1, "attention": 1, "x": 1}, r"without a loss: \['x'\]"),
        ({"task": -1.0, "logits": 1.0, "attention": 1.0}, r"weights.task=-1.0"),
        ({"task": float("nan"), "logits": 1.0, "attention": 1.0}, r"weights.task=nan"),
        ({"task": "much", "logits": 1.0, "attention": 1.0}, r"weights.task=much"),
        ({"task": 0.0, "logits": 0.0, "attention": 0.0}, "positive weight"),
    ],
)
def test_bad_weights_raise_one_sentence(weights: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(losses(), weights)


@pytest.fixture
def compose_distill() -> Callable[..., DictConfig]:
    """Return a composer of the command's distill node: methods set keys outside it too."""

    def composer(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("train", overrides=list(overrides)).distill

    return composer


@pytest.mark.parametrize("name", DISTILL)
def test_every_distill_config_builds_an_objective(
    name: str, compose_distill: Callable[..., DictConfig]
) -> None:
    objective = instantiate(compose_distill(f"distill={name}"))
    assert isinstance(objective, Objective)
    assert objective.needs_teacher == (name != "labels_only")


def test_default_records_no_attention_maps(compose_distill: Callable[..., DictConfig]) -> None:
    assert instantiate(compose_distill()).requires == {"hidden_states"}
    mapped = instantiate(compose_distill("distill.weights.attention=1"))
    assert mapped.requires == {"hidden_states", "attentions"}


def test_a_loss_is_added_swapped_and_removed_from_the_command_line(
    compose_distill: Callable[..., DictConfig],
) -> None:
    added = instantiate(
        compose_distill("+loss@distill.losses.extra=logits_mse", "+distill.weights.extra=0.5")
    )
    assert isinstance(added.losses["extra"], LogitsMSELoss) and added.weights["extra"] == 0.5
    swapped = instantiate(compose_distill("loss@distill.losses.logits=logits_mse"))
    assert isinstance(swapped.losses["logits"], LogitsMSELoss)
    gone = [f"~{key}.hidden" for key in ("loss@distill.losses", "distill.weights", "distill.fade")]
    removed = instantiate(compose_distill(*gone))
    assert list(removed.weights) == ["task", "logits"]
