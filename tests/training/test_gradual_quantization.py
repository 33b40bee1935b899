"""Rounding sets in by and by while training; evaluation always rounds fully."""

import pytest
import torch

from dq_lightning.models import bart
from dq_lightning.quantization.modules import ParameterQuantizer
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.quantization.symmetric import SymmetricQuantizer
from dq_lightning.training.gradual_quantization import GradualQuantization

pytestmark = pytest.mark.filterwarnings("ignore")
RECIPE = QuantizationRecipe(None, None, None, None)  # it reads no recipe


def gradual(fraction):
    return lambda student: GradualQuantization(student, RECIPE, bart.FAMILY, fraction)


def exactly_equal(left, right):
    torch.testing.assert_close(left, right, rtol=0, atol=0)


@pytest.mark.parametrize("shared", [False, True])
def test_the_mixture_and_its_ends(shared):
    weight = torch.nn.Parameter(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)))
    memo = ParameterQuantizer(SymmetricQuantizer(2, "per_row"), shared=shared)
    rounded = SymmetricQuantizer(2, "per_row")(weight)
    for strength in (0.0, 0.25, 1.0):
        memo.strength = strength
        memo.train()
        exactly_equal(memo(weight), torch.lerp(weight, rounded, strength))
        with torch.no_grad():
            exactly_equal(memo.eval()(weight), rounded)


def test_strength_by_step(fit):
    """A tenth of the way at a tenth of the fraction, and the whole of it from then on."""
    seen = []

    def watched(student):
        schedule = gradual(0.5)(student)
        use = schedule._use
        schedule._use = lambda strength: (seen.append(strength), use(strength))
        return schedule

    student = fit(8, interval=8, quantized=True, schedule=watched).module.student
    rising = list(dict.fromkeys(seen))
    assert rising == [0.0, 0.25, 0.5, 0.75, 1.0]
    memos = [m for m in student.modules() if isinstance(m, ParameterQuantizer)]
    assert memos and all(memo.strength == 1.0 for memo in memos)


def test_the_first_step_trains_weights_that_are_not_rounded(fit):
    softly = fit(2, interval=2, quantized=True, schedule=gradual(0.5)).recorder.losses
    plainly = fit(2, interval=2, quantized=True).recorder.losses
    assert softly[min(softly)] != plainly[min(plainly)]


@pytest.mark.parametrize("half", [2, 3, 4])
def test_resumed_equals_unbroken(fit, tmp_path, half):
    settings = {"interval": 1, "quantized": True, "schedule": gradual(0.5)}
    unbroken = fit(6, **settings)
    checkpoint = tmp_path / "checkpoints" / f"step={half}.ckpt"
    resumed = fit(6, checkpoint, folder="resumed", **settings)
    exactly_equal(resumed.weights, unbroken.weights)
    first = min(resumed.recorder.losses)
    tail = {key: loss for key, loss in unbroken.recorder.losses.items() if key >= first}
    assert resumed.recorder.losses == tail


def test_a_student_in_full_precision_trains_as_without(fit, capsys):
    exactly_equal(fit(3, interval=3, schedule=gradual(0.5)).weights, fit(3, interval=3).weights)
    assert "rounded" not in capsys.readouterr().out


def test_its_first_validations_may_be_the_best():
    assert gradual(0.5)(torch.nn.Linear(2, 2)).starts(100) == [0]
