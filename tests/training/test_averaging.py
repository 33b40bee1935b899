"""The average of the weights is what is validated, kept and resumed; nothing else changes."""

import copy

import pytest
import torch
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging

from dq_lightning.training.checkpoints import BestAndLast, load_best

pytestmark = pytest.mark.filterwarnings("ignore")
DECAY = 0.7


class Weights(Callback):
    """The student's weights after every step, and at every validation."""

    def __init__(self):
        self.trained, self.validated = [], {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained.append(copy.deepcopy(pl_module.student.state_dict()))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.validated[trainer.global_step] = copy.deepcopy(pl_module.student.state_dict())


def averaged(fit, steps, *rest, seen=None, **settings):
    callbacks = [EMAWeightAveraging(decay=DECAY), seen or Weights()]
    return fit(steps, *rest, callbacks=callbacks, quantized=True, **settings)


def test_validation_sees_the_average_of_the_weights_that_training_saw(fit):
    seen = Weights()
    fitted = averaged(fit, 4, seen=seen, interval=2)
    plain = fit(4, quantized=True, interval=2)
    assert fitted.recorder.losses == plain.recorder.losses
    average = dict(seen.trained[0])
    for step, weights in enumerate(seen.trained[1:], start=2):
        for name, value in weights.items():
            if value.is_floating_point():
                average[name] = DECAY * average[name] + (1 - DECAY) * value
        if step in (2, 4):
            torch.testing.assert_close(seen.validated[step], average)
    torch.testing.assert_close(fitted.weights, average)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_equals_unbroken(fit, tmp_path, accumulate):
    settings = {"interval": 1, "accumulate": accumulate}
    unbroken = averaged(fit, 4, **settings)
    checkpoint = tmp_path / "checkpoints" / "step=2.ckpt"
    resumed = averaged(fit, 4, checkpoint, folder="resumed", **settings)
    torch.testing.assert_close(resumed.weights, unbroken.weights, rtol=0, atol=0)
    assert resumed.recorder.validations == unbroken.recorder.validations[2:]


def test_the_best_checkpoint_holds_the_average_that_was_validated(fit, tmp_path, make_data):
    seen = Weights()
    best = BestAndLast(tmp_path / "best", "validation/wer", higher_is_better=False)
    callbacks = [EMAWeightAveraging(decay=DECAY), seen, best]
    fitted = fit(4, callbacks=callbacks, quantized=True, interval=1)
    fitted.trainer.checkpoint_callbacks.remove(best)
    fitted.trainer.callbacks.insert(0, best)
    path = load_best(fitted.trainer, fitted.module, make_data())
    assert path is not None
    step = int(path.stem.split("=")[1])
    torch.testing.assert_close(fitted.weights, seen.validated[step], rtol=0, atol=0)


def test_the_frozen_teacher_is_not_copied(make_module):
    module = make_module()
    assert copy.deepcopy(module).teacher is module.teacher
