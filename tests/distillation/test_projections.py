"""Laws of every loss on hidden states between models of unequal width."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from dq_lightning.distillation.loss import HIDDEN_STATES, Loss, Widths
from dq_lightning.distillation.masking import source_mask, target_mask
from dq_lightning.distillation.objective import Objective
from dq_lightning.distillation.projections import Projections, projected

CONF = Path(__file__).parents[2] / "conf" / "loss"
FILES = {path.stem: path for path in sorted(CONF.glob("*.yaml"))}
NAMES = [
    name
    for name, file in FILES.items()
    if HIDDEN_STATES in instantiate(OmegaConf.load(file)).requires
]
TEACHER = 4  # features of the random outputs
STACKS = {"encoder_hidden_states": source_mask, "decoder_hidden_states": target_mask}


def built(name: str) -> Loss:
    return instantiate(OmegaConf.load(FILES[name]))


def resized(outputs: Any, width: int) -> Any:
    """Hidden states of another width; the rest as it is."""

    def change(name: str, tensor: Tensor) -> Tensor:
        if not name.endswith(HIDDEN_STATES):
            return tensor
        wide = torch.cat([tensor, tensor.flip(-1) * 0.5], dim=-1)
        return wide[..., :width].detach().requires_grad_()

    return outputs.map(change)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[2, 6])
def width(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def loss(name: str, width: int) -> Loss:
    torch.manual_seed(0)
    loss = built(name)
    loss.bind(Widths(width, 8), Widths(TEACHER, 8))
    return loss


@pytest.fixture
def sample(make_sample: Callable, width: int) -> Any:
    sample = make_sample()
    sample.student = resized(sample.student, width)
    return sample


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-14)


def test_the_losses_are_found() -> None:
    assert {"hidden_state_mse", "hidden_cosine"} <= set(NAMES)


def test_equal_widths_make_no_parameter(name: str, make_sample: Callable) -> None:
    sample, loss, state = make_sample(), built(name), torch.get_rng_state()
    before = loss(sample.student, sample.teacher, sample.batch)
    loss.bind(Widths(TEACHER, 8), Widths(TEACHER, 6))
    assert list(loss.parameters()) == [] and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(loss(sample.student, sample.teacher, sample.batch), before)


def test_unequal_widths_without_bind_raise(name: str, sample: Any) -> None:
    with pytest.raises(ValueError, match="shape"):
        built(name)(sample.student, sample.teacher, sample.batch)


def test_a_teacher_of_another_width_than_bound_raises(loss: Loss, sample: Any) -> None:
    with pytest.raises(ValueError, match="shape"):
        loss(sample.student, resized(sample.teacher, TEACHER - 1), sample.batch)


def test_matrices_are_orthogonal_one_a_stack(loss: Loss, width: int) -> None:
    matrices = dict(loss.named_parameters())
    assert matrices
    for name, matrix in matrices.items():
        assert name.rsplit(".", 1)[-1] in STACKS
        assert matrix.shape == (TEACHER, width)
        small = matrix.mT @ matrix if width < TEACHER else matrix @ matrix.mT
        torch.testing.assert_close(small, torch.eye(min(width, TEACHER)))


def test_is_that_of_the_projected_student(name: str, loss: Loss, sample: Any) -> None:
    """The plain loss on states multiplied by hand: 0 where it is 0, and never negative."""
    matrices = {key.rsplit(".", 1)[-1]: matrix for key, matrix in loss.named_parameters()}

    def by_hand(attribute: str, tensor: Tensor) -> Tensor:
        matrix = matrices.get(attribute)
        if matrix is None:
            return tensor
        return torch.einsum("ij,blj->bli", matrix.to(tensor.dtype), tensor)

    student = sample.student.map(by_hand)
    value = loss(sample.student, sample.teacher, sample.batch)
    close(value, built(name)(student, sample.teacher, sample.batch))
    assert value > 0
    at_identity = loss(sample.student, student, sample.batch).item()
    assert (at_identity < 1e-12) == loss.zero_at_identity


def test_gradient_reaches_matrices_and_student_but_not_the_teacher(loss: Loss, sample: Any) -> None:
    loss(sample.student, sample.teacher, sample.batch).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in loss.parameters())
    assert any(tensor.grad is not None for tensor in sample.student.tensors())
    assert all(tensor.grad is None for tensor in sample.teacher.tensors())


def test_ignores_what_padding_holds(loss: Loss, sample: Any) -> None:
    def dirty(name: str, tensor: Tensor) -> Tensor:
        if name not in STACKS:
            return tensor
        return tensor.masked_fill(~STACKS[name](sample.batch).unsqueeze(-1), 17.0)

    clean = loss(sample.student, sample.teacher, sample.batch)
    close(loss(sample.student.map(dirty), sample.teacher.map(dirty), sample.batch), clean)


def test_ignores_duplication_of_the_batch(loss: Loss, sample: Any) -> None:
    student, teacher = (
        outputs.map(lambda _, tensor: torch.cat([tensor, tensor]))
        for outputs in (sample.student, sample.teacher)
    )
    batch = {name: torch.cat([tensor, tensor]) for name, tensor in sample.batch.items()}
    close(loss(student, teacher, batch), loss(sample.student, sample.teacher, sample.batch))


def test_autocast_and_half_precision_do_not_lower_it(loss: Loss, sample: Any) -> None:
    half = [o.map(lambda _, t: t.bfloat16()) for o in (sample.student, sample.teacher)]
    value = loss(*half, sample.batch)
    assert value.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(*half, sample.batch) == value


def test_the_objective_binds_the_losses_it_keeps() -> None:
    terms = {"a": built("hidden_state_mse"), "b": built("hidden_cosine"), "c": built("logits_mse")}
    objective = Objective(terms, {"a": 1.0, "b": 0.0, "c": 1.0})
    objective.bind(Widths(2, 8), Widths(TEACHER, 8))
    assert set(objective.state_dict()) == {
        f"losses.a.projections.matrices.{stack}" for stack in STACKS
    }


def test_a_stack_that_is_off_has_no_matrix() -> None:
    projections = Projections(["encoder_hidden_states"])
    projections.bind(Widths(2, 8), Widths(TEACHER, 8))
    assert list(projections.matrices) == ["encoder_hidden_states"]


def test_projected_by_hand() -> None:
    matrix = torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]])
    assert projected(torch.tensor([[[1.0, 10.0]]]), matrix).tolist() == [[[21.0, 10.0, 3.0]]]
