"""The training step: the student learns, the teacher stays what and where it is."""

import contextlib

import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_teacher_is_no_part_of_what_is_trained_or_saved(fit, tmp_path):
    fitted = fit(2)
    teacher = fitted.module.teacher.model
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(name.startswith("student.") for name in fitted.module.state_dict())
    ours = {id(parameter) for parameter in fitted.module.parameters()}
    assert not ours & {id(parameter) for parameter in teacher.parameters()}
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)
    assert set(checkpoint["state_dict"]) == set(fitted.module.state_dict())


def test_training_changes_the_student_alone(fit, make_module):
    fitted, fresh = fit(2), make_module()
    before, after = fresh.teacher.model.state_dict(), fitted.module.teacher.model.state_dict()
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    changed = [
        name
        for name, value in fresh.student.state_dict().items()
        if not torch.equal(value, fitted.weights[name])
    ]
    trained = {name for name, _ in fitted.module.student.named_parameters()}
    assert trained <= set(changed)


def test_every_term_is_logged_by_its_name(fit):
    terms = fit(1).recorder.terms[0]
    assert set(terms) == {"train/loss", "train/task", "train/logits", "train/hidden"}
    parts = sum(value for name, value in terms.items() if name != "train/loss")
    assert terms["train/loss"] == pytest.approx(parts)


def test_without_a_teacher_the_labels_alone_are_learnt(fit):
    fitted = fit(5, teacher=False)
    assert set(fitted.recorder.terms[0]) == {"train/loss", "train/task"}
    losses = [fitted.recorder.losses[key] for key in sorted(fitted.recorder.losses)]
    assert losses[-1] < losses[0]


def test_padding_is_never_trained_on(make_module, make_data):
    """A batch padded further gives the same loss."""
    module, data = make_module(), make_data()
    module.eval()
    rows = [data.split("train")[n] for n in range(3)]
    batch = data.collate({key: [row[key] for row in rows] for key in rows[0]})
    wider = {**batch}
    for key, value in (("input_ids", 0), ("attention_mask", 0), ("labels", -100)):
        wider[key] = torch.nn.functional.pad(batch[key], (0, 5), value=value)
    results = []
    for each in (batch, wider):
        inputs = module._inputs(each)
        outputs = module.student(**inputs, output_hidden_states=True, use_cache=False)
        teacher = module.teacher(inputs, module.objective.requires)
        results.append(module.objective(outputs, teacher, {**each, **inputs}).total)
    torch.testing.assert_close(*results)


def test_validation_scores_every_row_once(fit):
    fitted = fit(2)
    assert sorted(fitted.module.predictions) == [0, 1, 2, 3]
    step, scores = fitted.recorder.validations[-1]
    assert step == 2
    assert set(scores) == {"validation/per", "validation/wer"}


def test_a_learning_rate_for_every_step(fit):
    """Warm-up and decay count optimizer steps, also when batches are accumulated."""
    fitted = fit(4, accumulate=2)
    schedule = fitted.trainer.lr_scheduler_configs[0].scheduler
    assert schedule.last_epoch == fitted.trainer.global_step == 4
    assert schedule.get_last_lr() == [0.0, 0.0]


def test_a_teacher_that_no_loss_reads_is_not_run(make_module, make_data, monkeypatch):
    module = make_module()
    asked = []
    monkeypatch.setattr(type(module.teacher), "__call__", lambda *args: asked.append(args))
    monkeypatch.setattr(module, "log_dict", lambda *args, **kwargs: None)
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    monkeypatch.setattr(type(module), "trainer", None)
    batch = next(iter(make_data().train_dataloader()))
    for needed in (False, True):
        module.objective.needs_teacher = needed
        with contextlib.suppress(Exception):  # ends at the objective or the trainer, after asking
            module.training_step(batch, 0)
        assert len(asked) == needed
