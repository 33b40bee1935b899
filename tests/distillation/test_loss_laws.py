"""Laws that hold for every loss in conf/loss: a new YAML there is tested without an edit here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from dq_lightning.distillation.loss import Batch, Loss, pair_layers
from dq_lightning.distillation.masking import source_mask, target_mask

CONF = Path(__file__).parents[2] / "conf" / "loss"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))

# Which axes of a tensor run over source and which over target positions.
AXES = {
    "logits": {1: "target"},
    "encoder_hidden_states": {1: "source"},
    "decoder_hidden_states": {1: "target"},
    "encoder_attentions": {2: "source", 3: "source"},
    "decoder_attentions": {2: "target", 3: "target"},
    "cross_attentions": {2: "target", 3: "source"},
    **{f"encoder_{kind}_states": {1: "source"} for kind in ("query", "key", "value")},
    **{f"decoder_{kind}_states": {1: "target"} for kind in ("query", "key", "value")},
}


OPTIONS = [
    ("amad", {"variant": "kl"}),
    ("amad", {"variant": "kl", "level": "token", "temperature": 0.1}),
    ("amad", {"level": "token"}),
    ("logits_kl", {"temperature": 2.0}),
    ("top_k_kl", {"k": 2, "temperature": 2.0}),
    ("attention_relations", {"relation_heads": 2, "layers": "all"}),
    ("attention_relations", {"encoder": False, "query": 0.0, "key": 0.5}),
]
"""What the laws are tested with besides the files as they stand: the laws hold for it too."""


def built(name: str, **options: Any) -> Loss:
    return instantiate(OmegaConf.load(CONF / f"{name}.yaml"), **options)


LOSSES = {name: built(name) for name in NAMES} | {
    f"{name} {options}": built(name, **options) for name, options in OPTIONS
}


@pytest.fixture(params=list(LOSSES))
def loss(request: pytest.FixtureRequest) -> Loss:
    return LOSSES[request.param]


@pytest.fixture(params=[name for name in LOSSES if LOSSES[name].needs_teacher])
def distillation_loss(request: pytest.FixtureRequest) -> Loss:
    return LOSSES[request.param]


@pytest.fixture(
    params=[n for n in LOSSES if LOSSES[n].needs_teacher and LOSSES[n].zero_at_identity]
)
def loss_with_zero(request: pytest.FixtureRequest) -> Loss:
    return LOSSES[request.param]


@pytest.fixture(params=[name for name in LOSSES if LOSSES[name].requires])
def recording_loss(request: pytest.FixtureRequest) -> Loss:
    return LOSSES[request.param]


def padding_of(name: str, tensor: Tensor, batch: Batch) -> Tensor:
    """Return True where an element belongs to a padding position, or lies above the diagonal."""
    masks = {"source": source_mask(batch), "target": target_mask(batch)}
    padding = torch.zeros(tensor.shape, dtype=torch.bool)
    for axis, kind in AXES[name].items():
        shape = [1] * tensor.ndim
        shape[0], shape[axis] = masks[kind].shape
        padding = padding | ~masks[kind].view(shape)
    if name == "decoder_attentions":
        padding = padding | torch.ones(tensor.shape[2:]).triu(1).bool()
    return padding


def lengthen(name: str, tensor: Tensor, extra: int) -> Tensor:
    """Return `tensor` with `extra` positions of content on every axis of positions."""
    for axis in AXES[name]:
        shape = list(tensor.shape)
        shape[axis] = extra
        tensor = torch.cat([tensor, torch.full(shape, 3.25, dtype=tensor.dtype)], dim=axis)
    return tensor


def append(first: Any, second: Any) -> Any:
    """Return outputs that hold the rows of both."""
    rest = iter(second.tensors())
    return first.map(lambda _, tensor: torch.cat([tensor, next(rest)]))


def layers(outputs: Any, name: str) -> tuple[Tensor, ...]:
    value = getattr(outputs, name)
    return value if isinstance(value, tuple) else (value,)


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-14)


def test_the_folder_is_found() -> None:
    assert len(NAMES) >= 5
    assert all(isinstance(loss, Loss) for loss in LOSSES.values())


def test_names_known_requirements_and_returns_a_scalar(loss: Loss, make_sample: Callable) -> None:
    sample = make_sample()
    assert loss.requires <= {name.split("_", 1)[1] for name in AXES if "_" in name}
    value = loss(sample.student, sample.teacher, sample.batch)
    assert value.shape == () and value.dtype == torch.float64 and value > 0


def test_is_zero_at_student_equal_teacher(loss_with_zero: Loss, make_sample: Callable) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        sample = make_sample(dtype)
        value = loss_with_zero(sample.student, sample.student, sample.batch)
        assert value.item() == 0.0
        assert all(
            grad is None or grad.abs().max() < 1e-2
            for grad in torch.autograd.grad(value, sample.student.tensors(), allow_unused=True)
        )


def test_who_is_not_zero_at_student_equal_teacher_says_so(
    distillation_loss: Loss, make_sample: Callable
) -> None:
    sample = make_sample()
    value = distillation_loss(sample.student, sample.student, sample.batch)
    assert (value.item() == 0.0) == distillation_loss.zero_at_identity


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [1.0, 1e-4, 1e-7])
def test_is_never_negative(loss: Loss, make_sample: Callable, seed: int, noise: float) -> None:
    sample = make_sample(torch.float32, seed)
    other = make_sample(torch.float32, seed + 100).student
    nearby = sample.student.map(lambda _, tensor: tensor.detach() * (1 + noise))
    assert loss(sample.student, nearby, sample.batch) >= 0
    assert loss(sample.student, other, sample.batch) >= 0


def test_gives_the_teacher_no_gradient(loss: Loss, make_sample: Callable) -> None:
    sample = make_sample()
    loss(sample.student, sample.teacher, sample.batch).backward()
    assert all(tensor.grad is None for tensor in sample.teacher.tensors())
    assert any(tensor.grad is not None for tensor in sample.student.tensors())


def test_ignores_what_padding_holds(loss: Loss, make_sample: Callable) -> None:
    sample = make_sample()

    def dirty(factor: float) -> Callable[[str, Tensor], Tensor]:
        return lambda name, tensor: tensor.masked_fill(
            padding_of(name, tensor, sample.batch), factor
        )

    student, teacher = sample.student.map(dirty(17.0)), sample.teacher.map(dirty(-1e4))
    clean = loss(sample.student, sample.teacher, sample.batch)
    close(loss(student, teacher, sample.batch), clean)


def test_sends_no_gradient_to_padding(loss: Loss, make_sample: Callable) -> None:
    sample = make_sample()
    loss(sample.student, sample.teacher, sample.batch).backward()

    def gradient_of_padding(name: str, tensor: Tensor) -> Tensor:
        grad = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        return grad[padding_of(name, tensor, sample.batch)]

    assert all((grad == 0).all() for grad in sample.student.map(gradient_of_padding).tensors())


def test_ignores_how_much_padding_there_is(loss: Loss, make_sample: Callable) -> None:
    sample = make_sample()
    extra = torch.full((2, 3), -100)
    longer = {
        "attention_mask": torch.cat([sample.batch["attention_mask"], 0 * extra], dim=1),
        "labels": torch.cat([sample.batch["labels"], extra], dim=1),
    }
    student, teacher = (
        outputs.map(lambda name, tensor: lengthen(name, tensor, 3))
        for outputs in (sample.student, sample.teacher.map(lambda _, tensor: tensor * 0.5))
    )
    short = loss(sample.student, sample.teacher.map(lambda _, tensor: tensor * 0.5), sample.batch)
    close(loss(student, teacher, longer), short)


def test_ignores_duplication_of_the_batch(loss: Loss, make_sample: Callable) -> None:
    sample = make_sample()
    student, teacher = (
        outputs.map(lambda _, tensor: torch.cat([tensor, tensor]))
        for outputs in (sample.student, sample.teacher)
    )
    batch = {name: torch.cat([tensor, tensor]) for name, tensor in sample.batch.items()}
    close(loss(student, teacher, batch), loss(sample.student, sample.teacher, sample.batch))


def test_accumulation_of_equal_token_counts_is_the_large_batch(
    loss: Loss, make_sample: Callable
) -> None:
    sizes = {"sources": (4, 3), "targets": (3, 2)}
    first, second = make_sample(seed=1, **sizes), make_sample(seed=2, **sizes)
    student = append(first.student, second.student)
    teacher = append(first.teacher, second.teacher)
    batch = {name: torch.cat([first.batch[name], second.batch[name]]) for name in first.batch}
    halves = [loss(half.student, half.teacher, half.batch) for half in (first, second)]
    close(loss(student, teacher, batch), (halves[0] + halves[1]) / 2)


def test_a_batch_of_padding_alone_is_zero_not_nan(loss: Loss, make_sample: Callable) -> None:
    sample = make_sample()
    batch = {
        "attention_mask": torch.zeros_like(sample.batch["attention_mask"]),
        "labels": torch.full_like(sample.batch["labels"], -100),
    }
    assert loss(sample.student, sample.teacher, batch).item() == 0.0


def test_half_precision_is_computed_in_float32(loss: Loss, make_sample: Callable) -> None:
    sample = make_sample(torch.bfloat16)
    value = loss(sample.student, sample.teacher, sample.batch)
    student, teacher = (
        outputs.map(lambda _, tensor: tensor.float())
        for outputs in (sample.student, sample.teacher)
    )
    assert value.dtype == torch.float32
    assert value == loss(student, teacher, sample.batch)


def test_autocast_does_not_lower_the_precision(loss: Loss, make_sample: Callable) -> None:
    sample = make_sample(torch.float32)
    value = loss(sample.student, sample.teacher, sample.batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(sample.student, sample.teacher, sample.batch) == value


@pytest.mark.parametrize("broken", [None, (), "one missing", "one short"])
def test_missing_tensors_raise(recording_loss: Loss, make_sample: Callable, broken: str) -> None:
    sample = make_sample()
    recording_loss(sample.student, sample.teacher, sample.batch).backward()
    read = [name for name in AXES if any(t.grad is not None for t in layers(sample.student, name))]
    assert read and all(name.endswith(tuple(recording_loss.requires)) for name in read)
    for attribute in read:
        tensors = getattr(sample.student, attribute)
        replacement = {"one missing": (*tensors[:-1], None), "one short": tensors[:-1]}
        setattr(sample.student, attribute, replacement.get(broken, broken))
        with pytest.raises(ValueError, match=attribute):
            recording_loss(sample.student, sample.teacher, sample.batch)
        setattr(sample.student, attribute, tensors)


def test_tensors_of_another_width_raise(distillation_loss: Loss, make_sample: Callable) -> None:
    sample = make_sample()
    narrow = sample.teacher.map(lambda _, tensor: tensor[..., :-1])
    with pytest.raises(ValueError, match="shape"):
        distillation_loss(sample.student, narrow, sample.batch)


@pytest.mark.parametrize(
    ("attribute", "cut", "remedy"),
    [
        ("encoder_hidden_states", (..., slice(1)), "equal widths: drop student.width or set the"),
        ("cross_attentions", (slice(None), slice(1)), "drop student.num_heads, .* distill=amad$"),
        ("decoder_hidden_states", (slice(None), slice(1)), "build the student from this teacher"),
    ],
)
def test_narrow_students_are_told_what_to_write(
    make_sample: Callable, attribute: str, cut: Any, remedy: str
) -> None:
    sample = make_sample()
    setattr(sample.student, attribute, [t[cut] for t in getattr(sample.student, attribute)])
    with pytest.raises(ValueError, match=f"^{attribute}.*shape.*{remedy}"):
        pair_layers(sample.student, sample.teacher, attribute)
