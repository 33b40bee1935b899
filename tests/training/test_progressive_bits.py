"""8, 4, then the recipe's bits, whatever interrupts."""

from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate

from dq_lightning.models import bart
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.quantization.stages import present_quantizers
from dq_lightning.quantization.symmetric import SymmetricQuantizer
from dq_lightning.quantization.ternary import TernaryQuantizer, ternary_or_symmetric
from dq_lightning.training.progressive_bits import ProgressiveBits

pytestmark = pytest.mark.filterwarnings("ignore")
QUANTIZERS = sorted((Path(__file__).parents[2] / "conf" / "quantizer").glob("*.yaml"))
ROWS = partial(ternary_or_symmetric, bits=2, granularity="per_row")
TOKENS = partial(SymmetricQuantizer, bits=8, granularity="per_token")
RECIPE = QuantizationRecipe(ROWS, ROWS, TOKENS, TOKENS)


def progressive(student, bits=(8, 4), fractions=(0.34, 0.67)):
    """Of six steps: two at 8 bits, two at 4, two ternary."""
    return ProgressiveBits(student, RECIPE, bart.FAMILY, bits, fractions)


def widths(student):
    return {quantizer.bits for quantizer in present_quantizers(student).values()}


def exactly_equal(left, right):
    torch.testing.assert_close(left, right, rtol=0, atol=0)


def test_the_stages(make_module):
    student = make_module(quantized=True).student
    keys, own = list(student.state_dict()), present_quantizers(student)
    schedule = progressive(student)
    assert schedule.starts(6) == [2, 4]
    for stage, bits in enumerate((8, 4, 2)):
        schedule.enter(stage)
        assert widths(student) == {bits}
        assert list(student.state_dict()) == keys
        assert schedule.describe(stage) == f"quantization {bits}-{bits}-8"
    assert present_quantizers(student) == own  # the very same quantizers


def test_a_run_ends_in_the_recipe_and_validates_as_it_trained(fit):
    seen = []

    def watched(student):
        schedule = progressive(student)
        schedule.on_validation_end = lambda trainer, module: seen.append(
            (trainer.global_step, widths(student))
        )
        return schedule

    fitted = fit(6, interval=1, quantized=True, schedule=watched)
    assert seen == [(1, {8}), (2, {8}), (3, {4}), (4, {4}), (5, {2}), (6, {2})]
    assert widths(fitted.module.student) == {2}


def test_the_first_losses_are_those_of_eight_bits(fit, make_module):
    def eight(student):
        schedule = progressive(student)
        schedule.starts = lambda steps: [steps + 1, steps + 1]
        return schedule

    falling = fit(6, quantized=True, schedule=progressive).recorder.losses
    staying = fit(6, quantized=True, schedule=eight).recorder.losses
    assert [falling[key] == staying[key] for key in sorted(falling)] == [True] * 2 + [False] * 4


@pytest.mark.parametrize("half", [1, 2, 3, 4, 5])
def test_resumed_equals_unbroken(fit, tmp_path, half):
    settings = {"interval": 1, "quantized": True, "schedule": progressive}
    unbroken = fit(6, **settings)
    checkpoint = tmp_path / "checkpoints" / f"step={half}.ckpt"
    resumed = fit(6, checkpoint, folder="resumed", **settings)
    exactly_equal(resumed.weights, unbroken.weights)
    after = [entry for entry in unbroken.recorder.validations if entry[0] > half]
    assert resumed.recorder.validations == after


def test_no_stage_goes_below_the_recipe(make_module):
    student = make_module().student
    six = partial(SymmetricQuantizer, bits=6, granularity="per_row")
    recipe = QuantizationRecipe(six, six, None, None)
    prepare(student, recipe, bart.FAMILY)
    schedule = ProgressiveBits(student, recipe, bart.FAMILY, [8, 4], [0.3, 0.6])
    found = []
    for stage in range(3):
        schedule.enter(stage)
        found.append(widths(student))
    assert found == [{8}, {6}, {6}]


@pytest.mark.parametrize("file", QUANTIZERS, ids=lambda file: file.stem)
def test_every_weight_quantizer_is_exchanged_or_refused(make_module, file):
    """In one sentence; the keys of the state dict never change."""
    node = yaml.safe_load(file.read_text())
    bits = 1 if file.stem == "tbt_binary" else 2
    weights = partial(instantiate(node), bits=bits)
    recipe = QuantizationRecipe(weights, weights, TOKENS, TOKENS)
    student = make_module().student
    prepare(student, recipe, bart.FAMILY)
    keys = list(student.state_dict())
    try:
        schedule = ProgressiveBits(student, recipe, bart.FAMILY, [8, 4], [0.3, 0.6])
    except ValueError as error:
        assert str(error).startswith("quant_schedule") and str(error).endswith(".")
        assert list(student.state_dict()) == keys
        return
    for stage in range(3):
        schedule.enter(stage)
        assert list(student.state_dict()) == keys


def test_learned_scales_are_refused(make_module):
    (file,) = (file for file in QUANTIZERS if file.stem == "dynamic_scaling")
    weights = partial(instantiate(yaml.safe_load(file.read_text())), bits=2)
    recipe = QuantizationRecipe(weights, weights, None, None)
    student = make_module().student
    prepare(student, recipe, bart.FAMILY)
    with pytest.raises(ValueError, match=r"^quant_schedule: DynamicScalingQuantizer keeps a .*\.$"):
        ProgressiveBits(student, recipe, bart.FAMILY, [8], [0.5])


def test_a_quantizer_of_one_width_is_refused(make_module):
    ternary = partial(TernaryQuantizer, bits=2, granularity="per_row")
    recipe = QuantizationRecipe(ternary, ternary, None, None)
    student = make_module().student
    prepare(student, recipe, bart.FAMILY)
    with pytest.raises(ValueError, match=r"^quant_schedule\.bits=\[8\]: The ternary .* 2 bits"):
        ProgressiveBits(student, recipe, bart.FAMILY, [8], [0.5])


@pytest.mark.parametrize(
    ("bits", "fractions", "remedy"),
    [
        ([4, 8], [0.3, 0.6], "falling widths"),
        ([8, 8], [0.3, 0.6], "falling widths"),
        ([16, 4], [0.3, 0.6], "falling widths"),
        ([8, 4], [0.3], "unequal length"),
        ([8, 4], [0.6, 0.3], "rising numbers between 0 and 1"),
        ([], [], "rising numbers"),
    ],
)
def test_stages_that_cannot_be(make_module, bits, fractions, remedy):
    student = make_module(quantized=True).student
    with pytest.raises(ValueError, match=rf"^quant_schedule.*{remedy}.*\.$"):
        progressive(student, bits, fractions)
