"""Which file a run resumes from, and which weights it ends with."""

import os

import pytest
import pytorch_lightning as pl
import torch

from dq_lightning.training.checkpoints import (
    BestAndLast,
    checkpoint_to_resume,
    load_best,
    round_weights,
)


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


def zeroed(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("validated_step", [4, -1])  # -1: the last step has no validation yet
def test_the_best_validation_gives_the_weights(fit, make_data, tmp_path, validated_step):
    callback = BestAndLast(tmp_path / "own", "validation/per", higher_is_better=False)
    fitted = fit(4, interval=2, callbacks=[callback])
    assert fitted.trainer.checkpoint_callback is callback
    callback.validated_step = validated_step
    callback.best_model_score = torch.tensor(-1.0)  # better than any weights
    best = torch.load(callback.best_model_path, weights_only=False)["state_dict"]
    path = load_best(fitted.trainer, zeroed(fitted.module), make_data())
    assert str(path) == callback.best_model_path
    torch.testing.assert_close(fitted.module.state_dict(), best, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore")
def test_last_weights_that_beat_the_best_validation_stay(fit, make_data, tmp_path):
    callback = BestAndLast(tmp_path / "own", "validation/per", higher_is_better=False)
    fitted = fit(5, interval=2, callbacks=[callback])
    assert callback.validated_step == 4
    callback.best_model_score = torch.tensor(1e9)
    assert load_best(fitted.trainer, fitted.module, make_data()) is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("minutes", [0.0, 10.0])
def test_the_last_checkpoint_is_of_the_last_step(fit, tmp_path, minutes, monkeypatch):
    steps = []
    callback = BestAndLast(tmp_path / "own", "validation/per", False, minutes)
    save = pl.Trainer.save_checkpoint
    monkeypatch.setattr(
        pl.Trainer,
        "save_checkpoint",
        lambda self, path, *args, **kw: (
            steps.append(self.global_step) if path == tmp_path / "own" / "last.ckpt" else None,
            save(self, path, *args, **kw),
        ),
    )
    fit(5, interval=2, accumulate=2, callbacks=[callback])
    assert torch.load(tmp_path / "own" / "last.ckpt", weights_only=False)["global_step"] == 5
    assert set(steps) == ({1, 2, 3, 4, 5} if minutes == 0.0 else {2, 4, 5})


@pytest.mark.filterwarnings("ignore")
def test_a_best_checkpoint_that_a_killed_run_removed_is_forgotten(fit, tmp_path):
    """Killed between a new best and the next last.ckpt, whose best is then gone."""
    first = BestAndLast(tmp_path / "own", "validation/per", higher_is_better=False)
    fit(2, interval=2, callbacks=[first])
    last = tmp_path / "own" / "last.ckpt"
    saved = torch.load(last, weights_only=False)
    (state,) = (s for k, s in saved["callbacks"].items() if k.startswith("BestAndLast"))
    state["best_model_score"] = torch.tensor(-1.0)  # which no other validation reaches
    state["best_k_models"] = dict.fromkeys(state["best_k_models"], torch.tensor(-1.0))
    state["kth_value"] = torch.tensor(-1.0)
    torch.save(saved, last)
    os.remove(first.best_model_path)
    second = BestAndLast(tmp_path / "own", "validation/per", higher_is_better=False)
    fitted = fit(4, last, interval=2, callbacks=[second])
    assert load_best(fitted.trainer, fitted.module, None) == tmp_path / "own" / "best-step=4.ckpt"


def test_rounded_weights_survive_saving_in_that_dtype():
    module = torch.nn.BatchNorm1d(3)
    torch.nn.init.normal_(module.weight)
    before = module.weight.detach().clone()
    round_weights(module, torch.float16)
    assert module.weight.dtype == torch.float32
    assert torch.equal(module.weight, before.half().float())
    assert torch.equal(module.half().float().weight, before.half().float())
    assert module.num_batches_tracked.dtype == torch.int64
