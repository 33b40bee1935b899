"""The start of the stretched quantizer."""

import pytest
import torch

from dq_lightning.quantization.stretched import StretchedQuantizer


@pytest.mark.parametrize("bits", range(1, 9))
def test_stretched_starts_at_the_least_error_and_uses_every_level(bits: int) -> None:
    x = torch.randn(1, 2**16, generator=torch.Generator().manual_seed(6))
    quantizer = StretchedQuantizer(bits)
    quantizer.bind(x)
    assert len(quantizer(x).unique()) > 0.95 * 2**bits
    errors: list[float] = []
    for change in (1.0, 0.9, 1.1):
        changed = StretchedQuantizer(bits)
        changed.bind(x)
        with torch.no_grad():
            changed.scale.mul_(change)
        errors.append((changed(x) - x).square().mean().item())
    assert errors[0] == min(errors)
