"""What a person reads: the loss terms by name, the student's scores beside the teacher's."""

from types import SimpleNamespace

import pytest
import torch

from dq_lightning.training.progress import (
    ProgressLines,
    ProgressLive,
    ValidationLines,
    progress_callback,
)


def trainer(step=3, **metrics):
    values = {name.replace("_", "/", 1): torch.tensor(v) for name, v in metrics.items()}
    return SimpleNamespace(
        global_step=step,
        estimated_stepping_batches=10,
        callback_metrics=values,
        sanity_checking=False,
        is_global_zero=True,
    )


def test_a_line_names_the_terms(capsys):
    lines = ProgressLines(seconds=0.0)
    lines.on_train_start(trainer(step=0), None)
    lines.on_train_batch_end(trainer(train_loss=1.5, train_task=0.25, validation_wer=9.0),
                             None, None, None, 0)  # fmt: skip
    line = capsys.readouterr().out
    assert line.startswith("step 3/10  loss 1.500  task 0.250  ")
    assert "steps/s  left 0:00" in line
    assert "wer" not in line


def test_speed_counts_from_where_the_run_resumed(capsys, monkeypatch):
    clock = iter([100.0, 102.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    lines = ProgressLines(seconds=1.0)
    lines.on_train_start(trainer(step=2), None)
    lines.on_train_batch_end(trainer(step=4, train_loss=1.0), None, None, None, 0)
    assert "1.0 steps/s  left 0:06" in capsys.readouterr().out


def test_lines_are_seconds_apart_and_other_ranks_are_silent(capsys):
    lines = ProgressLines(seconds=60.0)
    lines.on_train_start(trainer(step=0), None)
    lines.on_train_batch_end(trainer(train_loss=1.0), None, None, None, 0)
    silent = ProgressLines(seconds=0.0)
    silent.disable()
    silent.on_train_start(trainer(step=0), None)
    silent.on_train_batch_end(trainer(train_loss=1.0), None, None, None, 0)
    assert capsys.readouterr().out == ""


def test_student_beside_teacher(capsys):
    lines = ValidationLines({"per": 5.0, "wer": 25.0})
    lines.on_validation_end(trainer(validation_per=10.0, validation_wer=40.0, train_loss=1.0), None)
    expected = "step 3: validation  per 10.00 (teacher 5.00)  wer 40.00 (teacher 25.00)\n"
    assert capsys.readouterr().out == expected


def test_student_alone(capsys):
    ValidationLines({}).on_validation_end(trainer(validation_wer=40.0), None)
    assert capsys.readouterr().out == "step 3: validation  wer 40.00\n"


@pytest.mark.parametrize("change", [{"sanity_checking": True}, {"is_global_zero": False}])
def test_not_in_the_sanity_check_nor_on_other_ranks(capsys, change):
    state = trainer(validation_wer=40.0)
    vars(state).update(change)
    ValidationLines({}).on_validation_end(state, None)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("terminal", "kind"), [(True, ProgressLive), (False, ProgressLines)])
def test_a_bar_on_a_terminal_and_lines_in_a_file(monkeypatch, terminal, kind):
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    assert type(progress_callback()) is kind


@pytest.mark.filterwarnings("ignore")
def test_the_live_bar_counts_steps_and_leaves_nothing_behind(fit, capsys):
    live = ProgressLive()
    fit(2, callbacks=[live])
    (task,) = live._bar.tasks
    assert (task.completed, task.total, task.description) == (2, 2, "training")
    assert task.fields["terms"].startswith("loss ")
    assert not live._bar.live.is_started


@pytest.mark.filterwarnings("ignore")
def test_both_speak_in_a_real_run(fit, capsys):
    fit(2, callbacks=[ValidationLines({"wer": 25.0})])
    out = capsys.readouterr().out
    assert "step 2: validation  per " in out
    assert "(teacher 25.00)" in out
