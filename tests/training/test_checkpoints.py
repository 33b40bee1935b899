"""Which file a run resumes from, and which weights it ends with."""

import os
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from dq_lightning.training.checkpoints import checkpoint_to_resume, load_best, round_weights


def touch(path, age=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


@pytest.fixture
def folders(tmp_path):
    return {"own": tmp_path / "new" / "checkpoints", "runs": tmp_path / "runs"}


def anything(run_dir):
    return True


def test_nothing_to_resume(folders):
    touch(folders["own"] / "last.ckpt")
    assert checkpoint_to_resume(None, **folders, same_config=anything) is None


def test_a_path_is_taken_as_it_is(folders, tmp_path):
    file = touch(tmp_path / "some.ckpt")
    assert checkpoint_to_resume(str(file), **folders, same_config=anything) == file


@pytest.mark.parametrize("name", ["nowhere.ckpt", "lst", "."])
def test_a_path_that_is_no_file(folders, name):
    with pytest.raises(ValueError, match=r"^ckpt=.* is no file; write ckpt=last or .*\.$"):
        checkpoint_to_resume(name, **folders, same_config=anything)


def test_the_own_folder_comes_first(folders):
    touch(folders["runs"] / "a/checkpoints/last.ckpt")
    own = touch(folders["own"] / "last.ckpt", age=100)
    assert checkpoint_to_resume("last", **folders, same_config=anything) == own


def test_the_newest_of_the_same_config(folders):
    touch(folders["runs"] / "a/checkpoints/last.ckpt", age=30)
    wanted = touch(folders["runs"] / "2026/b/checkpoints/last.ckpt", age=20)
    touch(folders["runs"] / "c/checkpoints/last.ckpt", age=10)
    touch(folders["runs"] / "a/checkpoints/best.ckpt")
    found = checkpoint_to_resume("last", **folders, same_config=lambda run: run.name != "c")
    assert found == wanted


@pytest.mark.parametrize("runs", [[], ["a/checkpoints/last.ckpt"]])
def test_no_run_of_this_config(folders, runs):
    for run in runs:
        touch(folders["runs"] / run)
    with pytest.raises(
        ValueError, match=r"^ckpt=last found no unfinished run of this config .*\.$"
    ):
        checkpoint_to_resume("last", **folders, same_config=lambda run: False)


@pytest.mark.filterwarnings("ignore")
def test_the_best_validation_gives_the_weights(fit):
    fitted = fit(4, interval=2)
    callback = fitted.trainer.checkpoint_callback
    best = torch.load(callback.best_model_path, weights_only=False)["state_dict"]
    with torch.no_grad():
        for parameter in fitted.module.parameters():
            parameter.zero_()
    assert str(load_best(fitted.trainer, fitted.module)) == callback.best_model_path
    torch.testing.assert_close(fitted.module.state_dict(), best, rtol=0, atol=0)


@pytest.mark.parametrize("callback", [None, ModelCheckpoint()])
def test_without_a_validation_the_weights_stay(callback):
    module = torch.nn.Linear(1, 1)
    assert load_best(SimpleNamespace(checkpoint_callback=callback), module) is None


def test_rounded_weights_survive_saving_in_that_dtype():
    module = torch.nn.BatchNorm1d(3)
    torch.nn.init.normal_(module.weight)
    before = module.weight.detach().clone()
    round_weights(module, torch.float16)
    assert module.weight.dtype == torch.float32
    assert torch.equal(module.weight, before.half().float())
    assert torch.equal(module.half().float().weight, before.half().float())
    assert module.num_batches_tracked.dtype == torch.int64
