"""What the single quantizers compute."""

import doctest
import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dq_lightning.quantization.dynamic_scaling import DynamicScalingQuantizer
from dq_lightning.quantization.fake_quantizer import FakeQuantizer, QuantizedTensor
from dq_lightning.quantization.functional import round_ste, straight_through
from dq_lightning.quantization.lsq import LsqQuantizer
from dq_lightning.quantization.lsq_plus import LsqPlusQuantizer
from dq_lightning.quantization.stretched import StretchedQuantizer
from dq_lightning.quantization.symmetric import SymmetricQuantizer
from dq_lightning.quantization.tbt_ternary import TbtTernaryQuantizer
from dq_lightning.quantization.ternary import TernaryQuantizer, ternary_or_symmetric


@settings(max_examples=60, deadline=None, derandomize=True)
@given(bits=st.integers(2, 8), seed=st.integers(0, 10**6), half=st.booleans())
def test_symmetric_is_idempotent_on_its_grid(bits: int, seed: int, half: bool) -> None:
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(seed))
    x = x.bfloat16() if half else x
    quantizer = SymmetricQuantizer(bits, "per_row")
    once = quantizer.quantize(x)
    twice = quantizer.quantize(once.dequantize())
    assert torch.equal(once.codes, twice.codes)
    torch.testing.assert_close(twice.scale, once.scale, rtol=3e-7, atol=0)


def test_symmetric_rounds_half_to_even_and_reaches_its_largest_code() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 127.0])
    assert SymmetricQuantizer(8, "per_tensor")(x).tolist() == [0.0, 2.0, 2.0, -0.0, -2.0, 127.0]


def test_ternary_threshold_is_strict_and_keeps_the_mean() -> None:
    x = torch.tensor([[1.0, -1.0, 0.7, 0.1], [4.0, 0.0, 0.0, 0.0]])
    assert TernaryQuantizer(2, "per_row")(x)[1].tolist() == [4.0, 0.0, 0.0, 0.0]
    torch.testing.assert_close(
        TernaryQuantizer(2, "per_row")(x)[0], torch.tensor([0.9, -0.9, 0.9, 0.0])
    )


def test_ternary_per_tensor_does_not_depend_on_threads() -> None:
    x = torch.randn(300, 257, generator=torch.Generator().manual_seed(1))
    threads = torch.get_num_threads()
    results = []
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        results.append(TernaryQuantizer(2, "per_tensor")(x))
    torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_published_rule() -> None:
    assert isinstance(ternary_or_symmetric(2, "per_row", 2.5), TernaryQuantizer)
    assert isinstance(ternary_or_symmetric(3, "per_row"), SymmetricQuantizer)


@pytest.mark.parametrize(
    ("quantizer", "arguments", "words"),
    [
        (SymmetricQuantizer, (9, "per_row"), "2 to 8 bits"),
        (SymmetricQuantizer, (1, "per_row"), r"choose quantizer tbt \(quant=tbt\) for 1 bit\."),
        (LsqQuantizer, (1,), r"choose quantizer stretched or tbt for 1 bit\."),
        (LsqPlusQuantizer, (1,), r"choose quantizer stretched or tbt for 1 bit\."),
        (DynamicScalingQuantizer, (1,), r"choose quantizer tbt for 1 bit\."),
        (StretchedQuantizer, (9,), "1 to 8 bits"),
        (SymmetricQuantizer, (8, "per_channel"), "per_tensor, per_row, per_token"),
        (SymmetricQuantizer, (8, "per_row", -1.0), "clip=-1.0"),
        (TernaryQuantizer, (8, "per_row"), "ternary_or_symmetric"),
        (TbtTernaryQuantizer, (4, "per_row"), "2 bits"),
    ],
)
def test_bad_arguments_say_what_to_write(
    quantizer: type[FakeQuantizer], arguments: tuple[object, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        quantizer(*arguments)


def test_straight_through_survives_two_backward_passes() -> None:
    x = torch.randn(4, requires_grad=True)
    result = straight_through(x, x.detach().round(), x.detach() > 0)
    result.sum().backward()
    result.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, 2.0 * (x.detach() > 0))
    assert torch.equal(torch.autograd.grad(round_ste(x).sum(), x)[0], torch.ones(4))


def test_integer_codes_and_zero_point() -> None:
    codes = torch.tensor([0, 3, 255], dtype=torch.uint8).int()
    tensor = QuantizedTensor(codes, torch.tensor(0.5), torch.tensor(3))
    assert tensor.dequantize().tolist() == [-1.5, 0.0, 126.0]
    assert tensor.dequantize_().tolist() == [-1.5, 0.0, 126.0]


@pytest.mark.parametrize("name", ["identity", "symmetric", "ternary", "tbt_ternary", "recipe"])
def test_worked_examples(name: str) -> None:
    module = importlib.import_module(f"dq_lightning.quantization.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
