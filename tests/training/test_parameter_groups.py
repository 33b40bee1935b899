"""Weight decay acts on matrices, once on each; learned scales have a group and a rate."""

from functools import partial

import pytest
import torch

from dq_lightning.models import bart
from dq_lightning.quantization.dynamic_scaling import DynamicScalingQuantizer
from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.lsq import LsqQuantizer
from dq_lightning.quantization.lsq_plus import LsqPlusQuantizer
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.training.parameter_groups import (
    depth_scaled,
    learning_rates,
    parameter_groups,
)
from dq_lightning.training.schedule import warmup_schedule


def test_matrices_decay_and_vectors_do_not(make_module):
    student = make_module(quantized=True).student
    decayed, kept = parameter_groups(student)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim < 2 for p in kept["params"])
    assert "weight_decay" not in decayed  # the optimizer's own
    assert kept["weight_decay"] == 0.0
    grouped = [id(p) for p in (*decayed["params"], *kept["params"])]
    assert sorted(grouped) == sorted(id(p) for p in student.parameters())


def test_the_vocabulary_has_a_group_where_it_has_a_rate(make_module):
    student = make_module(quantized=True).student
    embedding = student.get_input_embeddings().weight
    decayed, kept, own = parameter_groups(student, None, [embedding, embedding], 0.3)
    assert [id(p) for p in own["params"]] == [id(embedding)]
    assert own["lr"] == 0.3 and "weight_decay" not in own
    grouped = [id(p) for p in (*decayed["params"], *kept["params"], *own["params"])]
    assert sorted(grouped) == sorted(id(p) for p in student.parameters())
    assert len(parameter_groups(student, None, [embedding])) == 2
    optimizer = torch.optim.AdamW(parameter_groups(student, None, [embedding], 0.3), lr=0.1)
    assert learning_rates(optimizer.param_groups) == {"lr": 0.1, "embedding_lr": 0.3}


@pytest.mark.parametrize(
    ("student", "exponent", "factor"), [(12, 0.5, 1), (3, 0.5, 2), (3, 0, 1), (48, 0.5, 0.5)]
)
def test_a_shallower_student_has_a_higher_rate(student, exponent, factor):
    assert depth_scaled(0.1, 12, student, exponent) == pytest.approx(0.1 * factor, rel=1e-12)


def test_frozen_weights_are_left_out(make_module):
    student = make_module().student
    student.get_input_embeddings().weight.requires_grad_(False)
    count = sum(len(group["params"]) for group in parameter_groups(student))
    assert count == len(list(student.parameters())) - 1


def test_the_optimizer_decays_only_the_first_group():
    model = torch.nn.Linear(2, 2)
    torch.nn.init.ones_(model.bias)
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=0.1, weight_decay=0.5)
    model.weight.grad, model.bias.grad = torch.zeros(2, 2), torch.zeros(2)
    before = model.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before * 0.95)
    assert model.bias.tolist() == [1.0, 1.0]


@pytest.fixture
def learned(make_module):
    """A student whose weights, embeddings and activations learn scales, and one an offset."""
    student = make_module().student
    step = partial(LsqPlusQuantizer, bits=8, granularity="per_tensor", activation=True)
    recipe = QuantizationRecipe(
        partial(DynamicScalingQuantizer, bits=2),
        partial(LsqQuantizer, bits=2, granularity="per_tensor"),
        step,
        None,
    )
    prepare(student, recipe, bart.FAMILY)
    return student


def learned_names(student):
    return {
        f"{name}.{own}"
        for name, module in student.named_modules()
        if isinstance(module, FakeQuantizer)
        for own, _ in module.named_parameters()
    }


def test_learned_scales_have_a_group_of_their_own(learned):
    *others, scales = parameter_groups(learned, scale_lr=0.5)
    assert len(others) == 2
    assert (scales["lr"], scales["weight_decay"]) == (0.5, 0.0)
    assert all("lr" not in group for group in others)
    names = {id(p): name for name, p in learned.named_parameters()}
    found = {names[id(p)] for p in scales["params"]}
    assert {name.rsplit(".", 1)[1] for name in found} == {"scale", "offset", "gamma"}
    assert found <= learned_names(learned)
    assert not {names[id(p)] for group in others for p in group["params"]} & learned_names(learned)
    grouped = [id(p) for group in (*others, scales) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in learned.parameters())


def test_without_a_rate_scales_learn_as_fast_as_weights(learned):
    groups = parameter_groups(learned)
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1, 0.1]


def test_one_group_more_changes_no_bit():
    """With scale_lr=null the steps are those of two groups, where scales went with the biases."""

    def trained(merge):
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), LsqQuantizer(2, "per_tensor"))
        torch.manual_seed(1)
        torch.nn.init.normal_(model[0].weight)
        torch.nn.init.zeros_(model[0].bias)
        first, second, scales = parameter_groups(model)
        if merge:
            second["params"] += scales["params"]
        groups = [first, second] if merge else [first, second, scales]
        optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.1, fused=True)
        inputs = torch.randn(8, 3)
        for _ in range(5):
            model(inputs).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return model.state_dict()

    torch.testing.assert_close(trained(True), trained(False), rtol=0, atol=0)


def test_the_schedule_multiplies_both_rates(learned):
    optimizer = torch.optim.AdamW(parameter_groups(learned, scale_lr=0.5), lr=0.1)
    schedule = warmup_schedule(optimizer, 4, "linear", 0.0)
    assert learning_rates(optimizer.param_groups) == {"lr": 0.1, "scale_lr": 0.5}
    optimizer.step()
    schedule.step()
    rates = learning_rates(optimizer.param_groups)
    assert rates == pytest.approx({"lr": 0.075, "scale_lr": 0.375})


def test_a_model_without_learned_scales_logs_one_rate():
    optimizer = torch.optim.AdamW(parameter_groups(torch.nn.Linear(2, 2), 0.5), lr=0.1)
    assert learning_rates(optimizer.param_groups) == {"lr": 0.1}
