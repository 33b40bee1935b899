"""Learning rates over a run, and the spacing of validations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dq_lightning.training.schedule import validation_interval, warmup_schedule


def rates(name, steps, warmup_fraction):
    """Learning rate of each step, as a share of the peak, and the one after the last."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warmup_schedule(optimizer, steps, name, warmup_fraction)
    found = []
    for _ in range(steps + 1):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", [0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0]),
        ("constant", [0, 0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("cosine", [0, 0.5, 1, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381, 0]),
    ],
)
def test_shapes(name, expected):
    assert rates(name, 10, 0.2) == pytest.approx(expected, abs=1e-4)


def test_no_warm_up_starts_at_the_peak():
    assert rates("linear", 4, 0.0) == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert rates("constant", 2, 0.0) == [1, 1, 1]


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="zigzag"):
        rates("zigzag", 4, 0.0)


@given(st.integers(1, 5000), st.integers(1, 20))
def test_validations_are_evenly_spaced_and_as_many_as_asked(steps, validations):
    interval = validation_interval(steps, validations)
    assert 1 <= interval <= steps
    assert -(-steps // interval) <= validations  # the closing one at the end included


@pytest.mark.parametrize(
    ("steps", "validations", "interval"),
    [(800, 4, 200), (4, 1, 4), (802, 4, 201), (7, 4, 2), (3, 10, 1), (1, 1, 1), (1009, 4, 253)],
)
def test_as_many_validations_as_fit(steps, validations, interval):
    assert validation_interval(steps, validations) == interval
