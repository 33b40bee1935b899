"""Full precision until the switch, the recipe's quantization after it, whatever interrupts."""

from functools import partial

import pytest
import torch

from dq_lightning.models import bart
from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.identity import IdentityQuantizer
from dq_lightning.quantization.lsq_plus import LsqPlusQuantizer
from dq_lightning.quantization.modules import ParameterQuantizer
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.quantization.symmetric import SymmetricQuantizer
from dq_lightning.training.checkpoints import BestAndLast, load_best
from dq_lightning.training.delayed_quantization import DelayedQuantization

pytestmark = pytest.mark.filterwarnings("ignore")
RECIPE = QuantizationRecipe(None, None, None, None)  # a delay reads no recipe


def delayed(fraction):
    return lambda student: DelayedQuantization(student, RECIPE, bart.FAMILY, fraction)


def quantizers(student):
    return [module for module in student.modules() if isinstance(module, FakeQuantizer)]


def exactly_equal(left, right):
    torch.testing.assert_close(left, right, rtol=0, atol=0)


def test_off_until_the_switch_then_on(fit):
    """Before it the losses are those of a student that nothing quantizes; then they are not."""
    late = fit(6, interval=6, quantized=True, schedule=delayed(0.5)).recorder.losses
    never = fit(6, interval=6, quantized=True, schedule=never_quantized).recorder.losses
    assert [late[key] == never[key] for key in sorted(late)] == [True] * 3 + [False] * 3


def never_quantized(student):
    schedule = DelayedQuantization(student, RECIPE, bart.FAMILY, 0.5)
    schedule.starts = lambda steps: [steps + 1]
    return schedule


def test_a_student_that_is_not_yet_quantized_computes_as_one_that_never_will_be(
    make_module, make_data
):
    batch = next(iter(make_data().val_dataloader()))
    inputs = {"input_ids": batch["input_ids"], "labels": batch["labels"].clamp(min=0)}
    plain, off = make_module().student.eval(), make_module(quantized=True).student.eval()
    plain.set_attn_implementation("eager")
    schedule = DelayedQuantization(off, RECIPE, bart.FAMILY, 0.5)
    quantized = off(**inputs).logits
    schedule.enter(0)
    exactly_equal(off(**inputs).logits, plain(**inputs).logits)
    schedule.enter(1)
    exactly_equal(off(**inputs).logits, quantized)


@pytest.mark.parametrize("half", [2, 3, 4])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_equals_unbroken(fit, tmp_path, half, accumulate):
    """Stopped before the switch (step 3), at it and after it."""
    settings = {"interval": 1, "quantized": True, "accumulate": accumulate}
    unbroken = fit(6, schedule=delayed(0.5), **settings)
    checkpoint = tmp_path / "checkpoints" / f"step={half}.ckpt"
    resumed = fit(6, checkpoint, folder="resumed", schedule=delayed(0.5), **settings)
    exactly_equal(resumed.weights, unbroken.weights)
    first = min(resumed.recorder.losses)
    tail = {key: loss for key, loss in unbroken.recorder.losses.items() if key >= first}
    assert resumed.recorder.losses == tail
    after = [entry for entry in unbroken.recorder.validations if entry[0] > half]
    assert resumed.recorder.validations == after


def learning(student):
    """Swap the student's quantizers for learned ones, and delay them."""
    step = partial(LsqPlusQuantizer, bits=8, granularity="per_tensor", activation=True)
    prepare(student, QuantizationRecipe(None, None, step, None), bart.FAMILY)
    return delayed(0.5)(student)


@pytest.mark.parametrize("half", [2, 3, 4])
def test_learned_scales_resume_too(fit, tmp_path, half):
    unbroken = fit(6, interval=1, schedule=learning)
    checkpoint = tmp_path / "checkpoints" / f"step={half}.ckpt"
    resumed = fit(6, checkpoint, folder="resumed", interval=1, schedule=learning)
    exactly_equal(resumed.weights, unbroken.weights)


def test_learned_scales_begin_with_training_not_with_a_validation(fit, tmp_path):
    fit(6, interval=1, schedule=learning)
    for step, begun in ((3, False), (4, True)):
        state = torch.load(tmp_path / "checkpoints" / f"step={step}.ckpt", weights_only=False)
        flags = [v for k, v in state["state_dict"].items() if k.endswith("initialized")]
        assert flags
        assert all(bool(flag) == begun for flag in flags)


def test_the_best_is_chosen_among_quantized_steps(fit, tmp_path):
    callback = BestAndLast(tmp_path / "own", "validation/per", higher_is_better=False, after=3)
    chosen = []
    save = callback._save_topk_checkpoint
    callback._save_topk_checkpoint = lambda trainer, scores: (
        chosen.append(trainer.global_step),
        save(trainer, scores),
    )
    fit(6, interval=1, quantized=True, schedule=delayed(0.5), callbacks=[callback])
    assert chosen == [4, 5, 6]
    (best,) = (tmp_path / "own").glob("best-*.ckpt")
    assert torch.load(best, weights_only=False)["global_step"] > 3
    assert torch.load(tmp_path / "own" / "last.ckpt", weights_only=False)["global_step"] == 6


def test_last_weights_are_taken_where_no_quantized_step_was_validated(fit, make_data, tmp_path):
    callback = BestAndLast(tmp_path / "own", "validation/per", higher_is_better=False, after=4)
    fitted = fit(5, interval=2, quantized=True, schedule=delayed(0.8), callbacks=[callback])
    assert not list((tmp_path / "own").glob("best-*"))
    assert load_best(fitted.trainer, fitted.module, make_data()) is None


def test_the_test_runs_quantized(fit):
    fitted = fit(2, quantized=True, schedule=delayed(0.5))
    assert all(quantizer.enabled for quantizer in quantizers(fitted.module.student))


def test_a_memo_does_not_outlive_the_switch(make_module):
    student = make_module(quantized=True).student.eval()
    schedule = DelayedQuantization(student, RECIPE, bart.FAMILY, 0.5)
    memos = [module for module in student.modules() if isinstance(module, ParameterQuantizer)]
    with torch.no_grad():
        student(input_ids=torch.tensor([[5, 6, 2]]), labels=torch.tensor([[5, 2]]))
    assert any(memo._result is not None for memo in memos)
    schedule.enter(0)
    assert all(memo._result is None for memo in memos)


def test_what_the_recipe_leaves_out_is_never_switched_on(make_module):
    student = make_module().student
    tokens = partial(SymmetricQuantizer, bits=8, granularity="per_token")
    prepare(student, QuantizationRecipe(IdentityQuantizer, None, tokens, None), bart.FAMILY)
    schedule = DelayedQuantization(student, RECIPE, bart.FAMILY, 0.5)
    schedule.enter(0)
    schedule.enter(1)
    for quantizer in quantizers(student):
        assert quantizer.enabled != isinstance(quantizer, IdentityQuantizer)


@pytest.mark.parametrize(("steps", "start"), [(1200, 300), (2, 0), (3, 1), (1, 0)])
def test_the_switch_leaves_at_least_one_quantized_step(make_module, steps, start):
    assert delayed(0.25)(make_module(quantized=True).student).starts(steps) == [start]
    assert delayed(0.99)(make_module(quantized=True).student).starts(steps) == [
        min(round(0.99 * steps), steps - 1)
    ]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 2.0])
def test_fractions_that_cannot_be(make_module, fraction):
    student = make_module(quantized=True).student
    with pytest.raises(ValueError, match=rf"^quant_schedule: .*{fraction}\]; write rising .*\.$"):
        delayed(fraction)(student)


def test_nothing_to_delay(make_module):
    with pytest.raises(ValueError, match=r"^quant_schedule: nothing .* write quant_schedule=none"):
        delayed(0.5)(make_module().student)
