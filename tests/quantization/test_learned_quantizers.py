"""Learned scales: initial values, gradients, state."""

import copy
import itertools
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from dq_lightning.quantization.dynamic_scaling import DynamicScalingQuantizer
from dq_lightning.quantization.elastic import ElasticQuantizer
from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.learned_scale import LearnedScaleQuantizer
from dq_lightning.quantization.lsq import LsqQuantizer
from dq_lightning.quantization.lsq_plus import LsqPlusQuantizer
from dq_lightning.quantization.per_group import PerGroupQuantizer
from dq_lightning.quantization.stretched import StretchedQuantizer

BUILDERS: dict[str, Callable[[], LearnedScaleQuantizer]] = {
    "lsq": lambda: LsqQuantizer(3),
    "lsq unsigned": lambda: LsqQuantizer(1, signed=False, activation=True),
    "lsq+ weight": lambda: LsqPlusQuantizer(4),
    "lsq+ activation": lambda: LsqPlusQuantizer(4, activation=True),
    "stretched": lambda: StretchedQuantizer(2, "per_tensor"),
    "elastic 1": lambda: ElasticQuantizer(1),
    "elastic 1 unsigned": lambda: ElasticQuantizer(1, signed=False),
    "elastic 2": lambda: ElasticQuantizer(2),
    "elastic 2 unsigned": lambda: ElasticQuantizer(2, signed=False),
}
every = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


def at(quantizer: FakeQuantizer, **values: float) -> FakeQuantizer:
    """Set learned values and do not initialise from data."""
    quantizer = quantizer.double()
    state = quantizer.state_dict() | {n: torch.tensor(v) for n, v in values.items()}
    if "initialized" in state:
        state["initialized"] = torch.tensor(True)
    quantizer.load_state_dict(state)
    return quantizer


def gradients(quantizer: FakeQuantizer, x: list[float]) -> tuple[list[float], dict[str, float]]:
    """Gradients of the sum of the result: to x and to each Parameter."""
    leaf = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    quantizer(leaf).sum().backward()
    assert leaf.grad is not None
    return leaf.grad[0].tolist(), {n: float(p.grad) for n, p in quantizer.named_parameters()}


def test_lsq_by_hand() -> None:
    # v = x / 0.5 = 0.6, 1, -5, 1.4; codes 1, 1, -2, 1 of -2 ... 1; inside: the first.
    x = [0.3, 0.5, -2.5, 0.7]
    quantizer = at(LsqQuantizer(2), scale=0.5)
    assert quantizer(torch.tensor([x])).tolist() == [[0.5, 0.5, -1.0, 0.5]]
    grad_x, grad = gradients(quantizer, x)
    assert grad_x == [1.0, 0.0, 0.0, 0.0]
    assert grad["scale"] == pytest.approx((0.4 + 1 - 2 + 1) / 4**0.5)


def test_lsq_plus_by_hand() -> None:
    # v = (x - 1) / 0.5 = 0.4, -4, -1.6; codes 0, -2, -2 of -2 ... 1; inside: first and third.
    quantizer = at(LsqPlusQuantizer(2, activation=True), scale=0.5, offset=1.0)
    x = [1.2, -1.0, 0.2]
    assert quantizer(torch.tensor([x])).tolist() == [[1.0, 0.0, 0.0]]
    grad_x, grad = gradients(quantizer, x)
    assert grad_x == [1.0, 0.0, 1.0]
    assert grad["scale"] == pytest.approx((-0.4 - 2 + (-2 + 1.6)) / 3**0.5)
    assert grad["offset"] == pytest.approx(1 / 3**0.5)


def test_elastic_by_hand() -> None:
    x = [0.2, -0.1, -2.0, 0.0]
    quantizer = at(ElasticQuantizer(1), scale=0.5)
    assert quantizer(torch.tensor([x])).tolist() == [[0.5, -0.5, -0.5, 0.5]]
    grad_x, grad = gradients(quantizer, x)
    assert grad_x == [1.0, 1.0, 0.0, 1.0]
    assert grad["scale"] == pytest.approx(((1 - 0.4) + (-1 + 0.2) - 1 + 1) / 2)
    quantizer = at(ElasticQuantizer(2, signed=False), scale=0.5)
    assert quantizer(torch.tensor([0.2, 0.3, 0.9, -1.0])).tolist() == [0.0, 0.5, 1.0, 0.0]


def test_dynamic_scaling_by_hand() -> None:
    # mean|x| = 0.5, alpha = 1; codes 0, 1, -1, 1; the middle two are beyond +-1 or at it.
    x = [0.25, 1.0, -0.15, 0.6]
    quantizer = at(DynamicScalingQuantizer(2), gamma=2.0)
    assert quantizer(torch.tensor([x])).tolist() == [[0.0, 1.0, 0.0, 1.0]]
    grad_x, grad = gradients(quantizer, x)
    assert grad_x == [1.0, 0.0, 1.0, 1.0]
    assert grad["gamma"] == pytest.approx((-0.25 + 1 + 0.15 + 0.4) * 0.5)


def test_dynamic_scaling_has_one_gamma_for_all_rows() -> None:
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    quantizer = DynamicScalingQuantizer(4, "per_row")
    quantizer(x).square().sum().backward()
    assert quantizer.gamma.shape == () and quantizer.gamma.grad is not None
    assert torch.equal(quantizer(x[2:3]), quantizer(x)[2:3])
    errors = [
        (DynamicScalingQuantizer(4, "per_row", gamma)(x) - x).square().mean().item()
        for gamma in (1.0, None, 9.0)
    ]
    assert errors[1] == min(errors)


@pytest.mark.parametrize(
    ("quantizer", "scale"),
    [
        (LsqQuantizer(3), 2 * 2.0 / 3**0.5),
        (LsqQuantizer(2, signed=False), 2 * 2.0 / 3**0.5),
        (LsqPlusQuantizer(3), (1 + 3 * 5**0.5) / 4),
        (LsqPlusQuantizer(3, activation=True), 6 / 7),
        (StretchedQuantizer(2, "per_tensor"), 0.9957 * 6**0.5),
        (ElasticQuantizer(1), 2.0),
        (ElasticQuantizer(2), 8 / 3),
        (ElasticQuantizer(2, signed=False), 4 / 2**0.5),
    ],
)
def test_initial_scale(quantizer: LearnedScaleQuantizer, scale: float) -> None:
    quantizer(torch.zeros(2, 2))
    assert not quantizer.initialized  # nothing to learn from
    quantizer(torch.tensor([[-2.0, 0.0], [2.0, 4.0]]))
    assert quantizer.initialized and quantizer.scale.item() == pytest.approx(scale)
    quantizer(torch.full((2, 2), 100.0))
    assert quantizer.scale.item() == pytest.approx(scale)


@every
def test_state_is_complete(build: Callable[[], LearnedScaleQuantizer]) -> None:
    first, second = build(), build()
    parameter = second.scale
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(1)).abs()
    expected = first(x)
    first(x * 7)
    second(x * 3)  # initialised otherwise
    second.load_state_dict(first.state_dict())
    assert second.scale is parameter
    assert torch.equal(second(x), expected)
    assert torch.equal(copy.deepcopy(first)(x), expected)
    second.load_state_dict(build().state_dict())
    assert torch.equal(second(x), expected)  # initialised again by x


@every
def test_inference_mode_then_training(build: Callable[[], LearnedScaleQuantizer]) -> None:
    quantizer, x = build(), torch.randn(3, 8)
    with torch.inference_mode():
        quantizer(x)
    quantizer(x).sum().backward()
    assert all(parameter.grad is not None for parameter in quantizer.parameters())


@every
def test_training_lowers_the_error(build: Callable[[], LearnedScaleQuantizer]) -> None:
    quantizer, x = build(), torch.rand(16, 32, generator=torch.Generator().manual_seed(2))
    quantizer(x * 0.2)  # a scale five times too narrow
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.01)

    def error() -> Tensor:
        return (quantizer(x) - x).square().mean()

    before = error().item()
    for _ in range(60):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    assert error().item() < before


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types(build: Callable[[], LearnedScaleQuantizer], dtype: torch.dtype) -> None:
    x = torch.randn(3, 8, dtype=dtype, requires_grad=True)
    quantizer = build()
    result = quantizer(x)
    result.sum().backward()
    assert result.dtype == dtype and x.grad is not None and x.grad.dtype == dtype
    assert quantizer.scale.grad is not None and quantizer.scale.grad.dtype == torch.float32


def test_a_negative_scale_recovers() -> None:
    quantizer = at(LsqQuantizer(4), scale=-0.5)
    x = torch.tensor([[1.0, -2.0]])
    assert quantizer(x).abs().max() < 1e-30
    (quantizer(x) - x).square().sum().backward()
    assert quantizer.scale.grad is not None and quantizer.scale.grad < 0


@pytest.mark.parametrize("start", [1e4, 1e-4, -0.5])
@pytest.mark.parametrize(
    "name", ["lsq", "lsq+ weight", "lsq+ activation", "stretched", "elastic 2"]
)
def test_no_start_is_dead(name: str, start: float) -> None:
    # 1e4: all codes are 0; 1e-4: all values are clipped; below 0: the floor.
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    best = BUILDERS[name]()
    best.bind(x)
    quantizer = at(BUILDERS[name](), scale=start)
    (quantizer(x) - x).square().mean().backward()
    scale = quantizer.get_parameter("scale")
    assert scale.grad is not None and scale.grad.isfinite()
    assert (scale.grad > 0) == (start > best.scale.item())  # down from too wide, up from others


def test_groups_learn_a_scale_each() -> None:
    weight = torch.randn(3, 20, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    upstream = torch.randn(3, 20, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    groups = PerGroupQuantizer(3, partial(LsqQuantizer, granularity="per_row"), group_size=8)
    groups.bind(weight)
    result = groups(weight)
    assert torch.equal(result, groups.quantize(weight).dequantize())
    result.backward(upstream)
    shapes = {name: tuple(p.shape) for name, p in groups.named_parameters()}
    assert shapes == {"inner.scale": (3, 2, 1), "last.scale": (3, 1, 1)}
    one = LsqQuantizer(3)
    one.bind(weight[1, 8:16])
    assert torch.equal(one(weight[1, 8:16]), result[1, 8:16])
    one(weight[1, 8:16]).backward(upstream[1, 8:16])
    grad = groups.inner.get_parameter("scale").grad
    assert grad is not None and one.scale.grad is not None
    assert torch.allclose(grad[1, 1, 0], one.scale.grad, rtol=1e-12, atol=0)
    even = PerGroupQuantizer(3, partial(LsqQuantizer, granularity="per_row"), group_size=10)
    even.bind(weight)
    assert [name for name, _ in even.named_parameters()] == ["inner.scale"]


def test_evaluation_before_training_keeps_nothing() -> None:
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(10))
    quantizer, trained = (LsqPlusQuantizer(4, activation=True) for _ in range(2))
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    quantizer.eval()
    assert torch.equal(quantizer(x * 3), trained(x * 3))
    assert all(torch.equal(t, before[name]) for name, t in quantizer.state_dict().items())
    assert quantizer(torch.full((2,), 4.6)).tolist() == pytest.approx([4.6, 4.6])
    quantizer.train()(x)
    assert quantizer.initialized and not torch.equal(quantizer.scale, trained.scale)


def test_gradient_does_not_depend_on_the_batch_for_activations() -> None:
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    means = []
    for repeats in (1, 3):
        quantizer = at(LsqQuantizer(4, activation=True), scale=0.3)
        quantizer(x.repeat(repeats, 1)).square().mean().backward()
        means.append(quantizer.scale.grad)
    assert all(torch.allclose(a, b, rtol=1e-12, atol=0) for a, b in itertools.pairwise(means))


@pytest.mark.parametrize("kind", [LsqQuantizer, LsqPlusQuantizer, StretchedQuantizer])
def test_a_weight_gives_each_row_its_scale(kind: type[LearnedScaleQuantizer]) -> None:
    weight = torch.randn(4, 16, generator=torch.Generator().manual_seed(4))
    weight *= torch.tensor([[1.0], [4.0], [0.0], [0.3]])
    rows, whole = kind(3, "per_row"), kind(3, "per_tensor")
    rows.eval()  # a weight starts its scales in any mode
    rows.bind(weight)
    assert rows.initialized and rows.scale.shape == (4, 1)
    for row in (0, 1, 3):
        one = kind(3, "per_tensor")
        one.bind(weight[row])
        assert torch.equal(one.scale, rows.scale[row, 0])
    assert torch.equal(rows.scale[2], rows.scale[[0, 1, 3]].mean(0))
    whole.bind(weight)
    assert whole.scale.shape == ()
    assert (rows(weight) - weight).square().sum() < (whole(weight) - weight).square().sum()


def test_a_row_learns_from_its_values_alone() -> None:
    weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    upstream = torch.randn(3, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    rows = LsqQuantizer(3, "per_row")
    rows.bind(weight)
    rows(weight).backward(upstream)
    for row, values in enumerate(weight):
        one = LsqQuantizer(3)
        one.bind(values)
        one(values).backward(upstream[row])
        assert rows.scale.grad is not None and one.scale.grad is not None
        assert torch.allclose(rows.scale.grad[row], one.scale.grad, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", [LsqQuantizer, LsqPlusQuantizer])
def test_activations_have_one_scale_a_module(kind: type[LearnedScaleQuantizer]) -> None:
    with pytest.raises(ValueError, match=r"write granularity=per_tensor\."):
        kind(2, "per_row", activation=True)  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match=r"for activations write granularity=per_tensor\."):
        kind(2, "per_row")(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"per_row; write granularity=per_tensor\."):
        ElasticQuantizer(2, "per_row")


def test_stretched_by_hand() -> None:
    # v = x / 0.5 = 0.6, -0.2, 2.4, -9; codes 0, -1, 1, -2; levels +-0.25 and +-0.75; inside: two.
    x = [0.3, -0.1, 1.2, -4.5]
    quantizer = at(StretchedQuantizer(2, "per_tensor"), scale=0.5)
    assert quantizer(torch.tensor([x])).tolist() == [[0.25, -0.25, 0.75, -0.75]]
    grad_x, grad = gradients(quantizer, x)
    assert grad_x == [1.0, 1.0, 0.0, 0.0]
    assert grad["scale"] == pytest.approx(((0.5 - 0.6) + (-0.5 + 0.2) + 1.5 - 1.5) / 4**0.5)
