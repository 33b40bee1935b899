"""Train 2N steps == train N, stop, resume, train N: bit for bit on CPU."""

import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore")


def exactly_equal(left, right):
    torch.testing.assert_close(left, right, rtol=0, atol=0)


CASES = {  # half, validation interval, other settings; an epoch has 20 rows in batches of 4
    "mid-epoch": (3, 3, {}),
    "epoch end": (5, 5, {}),
    "second epoch": (7, 7, {"quantized": True}),
    "validating": (8, 2, {}),
    "accumulating": (2, 2, {"accumulate": 2, "batch_size": 5}),
    "all together": (3, 1, {"accumulate": 2, "batch_size": 5, "quantized": True}),
}


@pytest.mark.parametrize(("half", "interval", "settings"), CASES.values(), ids=CASES)
def test_resumed_equals_unbroken(fit, tmp_path, half, interval, settings):
    _compare(fit, tmp_path, half, interval, settings)


def test_accumulation_that_does_not_divide_the_epoch(fit, tmp_path):
    _compare(fit, tmp_path, 3, 1, {"accumulate": 2})


def _compare(fit, tmp_path, half, interval, settings):
    settings = {"interval": interval, **settings}
    unbroken = fit(2 * half, **settings)
    checkpoint = tmp_path / "checkpoints" / f"step={half}.ckpt"
    resumed = fit(2 * half, checkpoint, folder="resumed", **settings)
    exactly_equal(resumed.weights, unbroken.weights)
    first = min(resumed.recorder.losses)
    tail = {key: loss for key, loss in unbroken.recorder.losses.items() if key >= first}
    assert resumed.recorder.losses == tail
    assert resumed.recorder.terms == {
        key: terms for key, terms in unbroken.recorder.terms.items() if key >= first[0]
    }
    assert unbroken.recorder.validations[-1][0] == 2 * half  # the last one is at the end
    after = [entry for entry in unbroken.recorder.validations if entry[0] > half]
    assert resumed.recorder.validations == after
    assert resumed.trainer.global_step == unbroken.trainer.global_step == 2 * half


def test_resuming_leaves_out_the_batches_already_trained_on(fit, tmp_path):
    unbroken = fit(6, interval=3)
    resumed = fit(6, tmp_path / "checkpoints" / "step=3.ckpt", folder="resumed", interval=3)
    assert [index for _, index in sorted(resumed.recorder.losses)] == [3, 4, 0]
    assert len(unbroken.recorder.losses) == 6


def test_the_test_can_fail(fit, tmp_path):
    """Without StepSeed dropout differs after resuming: the comparison above has teeth."""
    unbroken = fit(6, interval=3, seed_callback=False)
    checkpoint = tmp_path / "checkpoints" / "step=3.ckpt"
    resumed = fit(6, checkpoint, folder="resumed", interval=3, seed_callback=False)
    assert not torch.equal(resumed.weights["lm_head.weight"], unbroken.weights["lm_head.weight"])


def test_the_same_run_twice_is_the_same(fit):
    first, second = fit(4, quantized=True), fit(4, quantized=True)
    assert first.recorder.losses == second.recorder.losses
    exactly_equal(first.weights, second.weights)
