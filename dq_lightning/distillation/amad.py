"""Attention map alignment distillation: every teacher head rebuilt from all student heads."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dq_lightning.distillation.attention_kl import FLOOR
from dq_lightning.distillation.loss import ATTENTIONS, Outputs, pair_layers
from dq_lightning.distillation.masking import masked_mean
from dq_lightning.distillation.stacked_loss import ATTENTION_MASKS, StackedLoss

Variant = Literal["mse", "kl"]


class AMADLoss(StackedLoss):
    """Alignment of attention maps when the student has at most as many heads as the teacher.

    With t_i, s_j the maps of teacher head i and student head j as vectors over real (query, key)
    pairs, and a_ij = softmax over j of cos(t_i, s_j) / temperature, per sample and layer
    (Zhao et al., "No Head Left Behind", AAAI 2024):

    - variant "mse": sum_i | t_i/|t_i| - sum_j a_ij s_j/|s_j| |^2, with Euclidean norms;
    - variant "kl": sum_i KL(t_i || sum_j a_ij s_j), each vector scaled to sum to 1, in nats.

    level "map" takes a whole map as one vector and averages over samples; "token" takes one vector
    and one alignment a query token and averages over real ones. Summed over the layers of every
    stack that is switched on; `reduction_over_layers="mean"` divides by each stack's number of
    layers. Maps are not negative, so the cosines of a row lie within 1 and at the published
    temperature 1 the weights within a factor e: the loss is above 0 at student = teacher, and
    tends to 0 there as the temperature does. Differs from the paper, which sums over query tokens
    at level "token": the mean leaves the weight of the loss alone when targets grow longer.
    """

    requires = frozenset({ATTENTIONS})
    zero_at_identity = False

    def __init__(
        self,
        variant: str = "mse",
        level: str = "map",
        temperature: float = 1.0,
        encoder: bool = True,
        decoder: bool = True,
        cross: bool = True,
        reduction_over_layers: str = "sum",
    ) -> None:
        _check(variant, level, temperature)
        super().__init__("AMAD", ATTENTION_MASKS, (encoder, decoder, cross), reduction_over_layers)
        self.variant: Variant = "kl" if variant == "kl" else "mse"
        self.per_token = level == "token"
        self.temperature = temperature

    def pairs(
        self, student: Outputs, teacher: Outputs | None, attribute: str
    ) -> list[tuple[Tensor, Tensor]]:
        pairs = pair_layers(student, teacher, attribute, free_axis=1)
        for s, t in pairs:
            if s.shape[1] > t.shape[1]:
                raise ValueError(
                    f"{attribute}: the student has {s.shape[1]} heads and the teacher only "
                    f"{t.shape[1]}: AMAD needs a student with at most as many"
                )
        return pairs

    def term(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Float[Tensor, ""]:
        # Autocast would lower the products to half precision.
        with torch.autocast(mask.device.type, enabled=False):
            s, real = head_vectors(student, mask, self.per_token)
            t, _ = head_vectors(teacher, mask, self.per_token)
            error = reconstruction_error(s, t, real, self.temperature, self.variant)
            return masked_mean(error, real.any(-1))


def head_vectors(
    maps: Float[Tensor, "batch heads queries keys"],
    mask: Bool[Tensor, "batch queries keys"],
    per_token: bool,
) -> tuple[Float[Tensor, "batch groups heads size"], Bool[Tensor, "batch groups size"]]:
    """Return one vector a head and group, and which of its entries are real (the others are 0).

    A group is a query token, or the whole map.
    """
    real = maps.masked_fill(~mask.unsqueeze(1), 0.0)
    if per_token:
        return real.transpose(1, 2), mask
    return real.flatten(2).unsqueeze(1), mask.flatten(1).unsqueeze(1)


def reconstruction_error(
    student: Float[Tensor, "batch groups student_heads size"],
    teacher: Float[Tensor, "batch groups teacher_heads size"],
    mask: Bool[Tensor, "batch groups size"],
    temperature: float,
    variant: Variant,
) -> Float[Tensor, "batch groups"]:
    """Return how far the mixtures of student heads are from the teacher heads, summed over them."""
    student_units, teacher_units = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    alignment = F.softmax(teacher_units @ student_units.mT / temperature, dim=-1)
    if variant == "mse":
        return (teacher_units - alignment @ student_units).square().sum((-2, -1))
    entries = mask.unsqueeze(-2)
    target = _distribution(teacher, entries)
    # 1 where nothing is real: its logarithm and gradient vanish.
    mixture = (alignment @ _distribution(student, entries)).masked_fill(~entries, 1.0)
    error = (torch.xlogy(target, target) - target * mixture.log()).sum((-2, -1))
    # Rounding can leave a perfect reconstruction a hair below zero.
    return error.clamp(min=0.0)


def _distribution(vectors: Tensor, entries: Tensor) -> Tensor:
    """Scale to sum 1 over `entries`, at least `FLOOR` each so that no logarithm is infinite."""
    positive = vectors.clamp(min=FLOOR).masked_fill(~entries, 0.0)
    return positive / positive.sum(-1, keepdim=True).clamp(min=FLOOR)


def _check(variant: str, level: str, temperature: float) -> None:
    if variant not in ("mse", "kl"):
        raise ValueError(f"variant={variant!r} of AMAD is unknown: write mse or kl")
    if level not in ("map", "token"):
        raise ValueError(f"level={level!r} of AMAD is unknown: write map or token")
    if not temperature > 0.0:
        raise ValueError(
            f"temperature={temperature} of AMAD must be positive, for instance 1 (published) or 0.1"
        )
