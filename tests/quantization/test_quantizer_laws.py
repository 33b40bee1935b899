"""Laws that every quantizer of conf/quantizer obeys."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from pathlib import Path

import hydra
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor

from dq_lightning.quantization.fake_quantizer import FakeQuantizer, Granularity
from dq_lightning.quantization.identity import IdentityQuantizer

CONF = Path(__file__).parents[2] / "conf" / "quantizer"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
# A scale from the mean, and a zero that replaces the end of a range, move when taken again.
MOVING = ("dynamic_scaling", "linear_zero_drop")
# TWN's threshold and the dropped zero are not half-way between two levels.
BY_THRESHOLD = ("ternary", "ternary_or_symmetric", "linear_zero_drop")
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@cache
def factories(name: str) -> list[Callable[[], FakeQuantizer]]:
    """Every setting of one YAML: bits it accepts, granularities, clips and flags."""
    config = OmegaConf.load(CONF / f"{name}.yaml")
    flags = [key for key, value in config.items() if key != "_partial_" and type(value) is bool]
    clips = (None, 1.5) if "clip" in config else (None,)
    found: list[Callable[[], FakeQuantizer]] = []
    for granularity, clip, *states in product(Granularity, clips, *[(False, True)] * len(flags)):
        changes = dict(zip(flags, states, strict=True)) | {"granularity": granularity.value}
        changes |= {"clip": clip} if clip else {}
        changes |= {"group_size": 2} if "group_size" in config else {}
        build = hydra.utils.instantiate(config, **changes)
        for bits in range(1, 9):
            try:
                build(bits=bits)
            except ValueError as error:
                assert "bit" in str(error) or "granularity" in str(error)
            else:
                found.append(partial(build, bits=bits))
    assert found
    return found


def quantizers(name: str, x: Tensor) -> Iterator[FakeQuantizer]:
    """A fresh quantizer of every setting; those with a scale a row are bound to x, as a weight."""
    for build in factories(name):
        quantizer = build()
        if quantizer.granularity.dim is not None:
            quantizer.bind(x)
        yield quantizer


def is_learned(quantizer: FakeQuantizer) -> bool:
    return any(True for _ in quantizer.parameters())


def scopes(x: Tensor, quantizer: FakeQuantizer) -> list[Tensor]:
    """The values that share a scale."""
    if quantizer.granularity.dim is None:
        return [x.flatten()]
    rows = x.reshape(-1, x.shape[-1])
    return [part for row in rows for part in row.split(quantizer.group_size or len(row))]


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = x * draw(st.sampled_from((0.0, 1e-44, 1e-30, 0.02, 3.0, 1e6)))
    if draw(st.booleans()):
        x[..., : draw(st.integers(0, shape[-1]))] = 0
    return x.to(draw(st.sampled_from(DTYPES)))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(x=tensors())
def test_forward_is_quantize_then_dequantize(name: str, x: Tensor) -> None:
    for quantizer in quantizers(name, x):
        before = x.clone()
        result = quantizer(x)
        again = quantizer.quantize(x)
        assert torch.equal(result, again.dequantize())
        assert torch.equal(x, before)
        assert result.dtype == x.dtype
        assert result.isfinite().all()
        if isinstance(quantizer, IdentityQuantizer):
            continue
        assert torch.equal(again.codes, again.codes.round())
        for codes, values in zip(
            scopes(again.codes, quantizer), scopes(result, quantizer), strict=True
        ):
            found = codes.double().unique()
            assert len(values.unique()) <= len(found) <= quantizer.num_levels
            is_binary = quantizer.num_levels == 2 and set(found.tolist()) <= {-1, 1}
            assert is_binary or found[-1] - found[0] < quantizer.num_levels
        if quantizer.keeps_zero:
            assert ((result.sign() == x.sign()) | (result == 0)).all()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(x=tensors())
def test_a_grid_is_its_own_grid(name: str, x: Tensor) -> None:
    if name in MOVING or x.dtype == torch.bfloat16:  # 8 bits of mantissa move an offset grid
        return
    for quantizer in quantizers(name, x):
        first = quantizer.quantize(x)
        assert torch.equal(quantizer.quantize(first.dequantize()).codes, first.codes)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(x=tensors())
def test_every_value_takes_its_nearest_level(name: str, x: Tensor) -> None:
    if name in BY_THRESHOLD or x.dtype == torch.bfloat16:
        return
    slack = 1e-5 * x.abs().amax() + 2e-8  # of the arithmetic, and of the asymmetric scale's floor
    for quantizer in quantizers(name, x):
        for values, result in zip(
            scopes(x, quantizer), scopes(quantizer(x).detach(), quantizer), strict=True
        ):
            distances = (values[:, None] - result.unique()).abs().amin(1)
            assert ((values - result).abs() <= distances + slack).all()


@pytest.mark.parametrize("name", NAMES)
def test_zero_rows_stay_zero_and_do_not_disturb_others(name: str) -> None:
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    x[1] = 0
    for quantizer in quantizers(name, x):
        # Without a zero on its grid a scope of zeros is zero only if it has a scale of its own.
        if quantizer.keeps_zero or (quantizer.granularity.dim and not is_learned(quantizer)):
            assert torch.equal(quantizer(x)[1], torch.zeros(8))
        if quantizer.rows_stand_alone:
            assert torch.equal(quantizer(x)[0], quantizer(x[0]))


@pytest.mark.parametrize("name", NAMES)
def test_only_zeros_stay_zeros(name: str) -> None:
    zeros = torch.zeros(2, 4)
    for quantizer in quantizers(name, zeros):
        result = quantizer(zeros)
        assert torch.equal(result, zeros) or is_learned(quantizer)
        assert result.abs().amax() < 1e-36  # a learned scale that has not started is next to none


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_is_straight_through_and_zero_at_the_clip(name: str, dtype: torch.dtype) -> None:
    values = [-2.0, -1.5, -1.4, 0.0, 0.3, 1.5, 7.0]
    upstream = torch.arange(1.0, 8.0, dtype=dtype)[None]
    for quantizer in quantizers(name, upstream):
        if is_learned(quantizer):
            continue  # the range without gradient is learned too: test_learned_quantizers
        x = torch.tensor([values], dtype=dtype, requires_grad=True)
        quantizer(x).backward(upstream)
        inside = torch.ones_like(x) if quantizer.clip is None else (x.abs() < quantizer.clip)
        assert x.grad is not None and torch.equal(x.grad, upstream * inside)


@pytest.mark.parametrize("name", NAMES)
def test_values_beyond_the_clip_count_as_the_clip(name: str) -> None:
    x = torch.tensor([[-9.0, -1.0, 0.2, 1.6, 4.0]])
    for quantizer in quantizers(name, x):
        if quantizer.clip is not None:
            clamped = x.clamp(-quantizer.clip, quantizer.clip)
            assert torch.equal(quantizer(x), quantizer(clamped))
            assert quantizer(x).abs().amax() <= quantizer.clip * (1 + 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_disabled_passes_through(name: str) -> None:
    x = torch.randn(3, 8)
    for quantizer in quantizers(name, x):
        quantizer.enabled = False
        assert quantizer(x) is x
