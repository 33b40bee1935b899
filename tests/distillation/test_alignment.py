"""AMAD by its formula, written with loops, and with students of fewer heads."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from dq_lightning.distillation.amad import AMADLoss

SOURCES = (4, 2)
BATCH = {
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
    "labels": torch.tensor([[1], [1]]),
}


def encoder_maps(heads: int, seed: int) -> SimpleNamespace:
    """One layer of attention maps that give padding keys nothing, as models do."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, heads, 4, 4, generator=generator, dtype=torch.float64)
    padding = BATCH["attention_mask"].view(2, 1, 1, 4) == 0
    return SimpleNamespace(
        encoder_attentions=(scores.masked_fill(padding, -torch.inf).softmax(-1),)
    )


def alone(**options: object) -> AMADLoss:
    return AMADLoss(decoder=False, cross=False, **options)


def vectors(outputs: SimpleNamespace, sample: int, level: str) -> list[Tensor]:
    """(heads, size) of the real entries: one matrix, or one for each query token."""
    real = outputs.encoder_attentions[0][sample][:, : SOURCES[sample], : SOURCES[sample]]
    return [real.flatten(1)] if level == "map" else list(real.unbind(1))


def by_the_formula(t: Tensor, s: Tensor, variant: str, temperature: float) -> Tensor:
    total = torch.zeros(())
    for t_i in t:
        cosines = torch.stack([t_i @ s_j / (t_i.norm() * s_j.norm()) for s_j in s])
        a_i = (cosines / temperature).softmax(0)
        if variant == "mse":
            mixture = sum(a * s_j / s_j.norm() for a, s_j in zip(a_i, s, strict=True))
            total = total + (t_i / t_i.norm() - mixture).square().sum()
        else:
            mixture = sum(a * s_j / s_j.sum() for a, s_j in zip(a_i, s, strict=True))
            target = t_i / t_i.sum()
            total = total + (target * (target / mixture).log()).sum()
    return total


@pytest.mark.parametrize("variant", ["mse", "kl"])
@pytest.mark.parametrize("level", ["map", "token"])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_is_the_published_formula(variant: str, level: str, temperature: float, heads: int) -> None:
    student, teacher = encoder_maps(heads, 0), encoder_maps(3, 1)
    terms = [
        by_the_formula(t, s, variant, temperature)
        for sample in range(2)
        for t, s in zip(
            vectors(teacher, sample, level), vectors(student, sample, level), strict=True
        )
    ]
    value = alone(variant=variant, level=level, temperature=temperature)(student, teacher, BATCH)
    torch.testing.assert_close(value, torch.stack(terms).mean(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("variant", ["mse", "kl"])
@pytest.mark.parametrize("level", ["map", "token"])
def test_at_identity_it_tends_to_zero_with_the_temperature(variant: str, level: str) -> None:
    maps = encoder_maps(3, 0)
    published, sharp = (
        alone(variant=variant, level=level, temperature=t)(maps, maps, BATCH) for t in (1.0, 1e-4)
    )
    assert published > 0.01 and sharp < 1e-6


def test_the_order_of_the_students_heads_does_not_matter() -> None:
    student, teacher = encoder_maps(3, 0), encoder_maps(3, 1)
    swapped = SimpleNamespace(encoder_attentions=(student.encoder_attentions[0].flip(1),))
    torch.testing.assert_close(alone()(student, teacher, BATCH), alone()(swapped, teacher, BATCH))


def test_more_student_heads_than_teacher_heads_raise() -> None:
    with pytest.raises(ValueError, match="3 heads and the teacher only 2"):
        alone()(encoder_maps(3, 0), encoder_maps(2, 1), BATCH)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AMADLoss(variant="mae"), "write mse or kl"),
        (lambda: AMADLoss(level="head"), "write map or token"),
        (lambda: AMADLoss(temperature=0.0), "temperature=0.0"),
        (lambda: AMADLoss(encoder=False, decoder=False, cross=False), "switch one on"),
    ],
)
def test_bad_options_raise(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
