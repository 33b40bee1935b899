"""AdamW whose eps comes before the bias correction, against its formula and against torch's."""

import copy
from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dq_lightning.training.reference_adamw import ReferenceAdamW

LR, BETAS, EPS = 0.01, (0.9, 0.99), 1e-3
KINDS = [{"foreach": False}, {"foreach": True}, {"fused": True}]


def gradients(steps: int) -> list[Tensor]:
    """From far above to far below eps, where its place decides."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(steps, 4, generator=generator, dtype=torch.float64)
    return list(noise * torch.tensor([1.0, 1e-2, 1e-3, 1e-5]))


def formula(start: Tensor, steps: int) -> Tensor:
    theta, m, v = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for t, grad in enumerate(gradients(steps), 1):
        m = BETAS[0] * m + (1 - BETAS[0]) * grad
        v = BETAS[1] * v + (1 - BETAS[1]) * grad**2
        size = LR * sqrt(1 - BETAS[1] ** t) / (1 - BETAS[0] ** t)
        theta = theta - size * m / (v.sqrt() + EPS)
    return theta


def new(weight: nn.Parameter, **options: Any) -> ReferenceAdamW:
    options = {"lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": 0.0, **options}
    return ReferenceAdamW([weight], **options)


def walk(optimizer: torch.optim.Optimizer, weight: nn.Parameter, grads: list[Tensor]) -> None:
    for grad in grads:
        weight.grad = grad.to(weight.dtype).clone()
        optimizer.step()


def started() -> nn.Parameter:
    return nn.Parameter(torch.linspace(-1.0, 1.0, 4, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_it_is_the_formula(kind: dict[str, bool]) -> None:
    weight = started()
    optimizer = new(weight, **kind)
    walk(optimizer, weight, gradients(5))
    torch.testing.assert_close(weight.detach(), formula(started().detach(), 5), rtol=0, atol=1e-14)
    assert optimizer.param_groups[0]["eps"] == EPS


def test_only_eps_sets_it_apart() -> None:
    ours, theirs, exact = started(), started(), started()
    walk(new(ours), ours, gradients(3))
    walk(torch.optim.AdamW([theirs], LR, BETAS, EPS, weight_decay=0.0), theirs, gradients(3))
    assert (ours - theirs).abs().max() > 1e-3
    without = new(exact, eps=0.0, weight_decay=0.1)
    same = started()
    walk(without, exact, gradients(3))
    walk(torch.optim.AdamW([same], LR, BETAS, 0.0, weight_decay=0.1), same, gradients(3))
    assert torch.equal(exact, same)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_it_resumes_bit_for_bit(kind: dict[str, bool]) -> None:
    grads, whole, first = gradients(6), started(), started()
    walk(new(whole, **kind), whole, grads)
    saved = new(first, **kind)
    walk(saved, first, grads[:3])
    second = nn.Parameter(first.detach().clone())
    resumed = new(second, **kind)
    resumed.load_state_dict(copy.deepcopy(saved.state_dict()))
    walk(resumed, second, grads[3:])
    assert torch.equal(second, whole)


def test_it_continues_a_state_of_adamw() -> None:
    """Such a state holds the counts of its weights alone."""
    weight = started()
    plain = torch.optim.AdamW([weight], LR, BETAS, EPS, weight_decay=0.0)
    walk(plain, weight, gradients(3))
    optimizer = new(weight)
    optimizer.load_state_dict(plain.state_dict())
    walk(optimizer, weight, gradients(1))
    assert optimizer.param_groups[0]["num_steps"] == 4


def test_a_failed_step_counts_for_nothing() -> None:
    weight = started()
    optimizer = new(weight)

    def fails() -> float:
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"):
        optimizer.step(fails)
    walk(optimizer, weight, gradients(5))
    torch.testing.assert_close(weight.detach(), formula(started().detach(), 5), rtol=0, atol=1e-14)


def test_a_cuda_graph_is_refused() -> None:
    with pytest.raises(ValueError, match=r"capturable=false"):
        new(started(), capturable=True)
