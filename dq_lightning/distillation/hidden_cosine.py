"""Cosine distance between the hidden states of student and teacher."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dq_lightning.distillation.loss import HIDDEN_STATES, Outputs, Widths
from dq_lightning.distillation.masking import masked_mean
from dq_lightning.distillation.projections import Projections
from dq_lightning.distillation.stacked_loss import STATE_MASKS, StackedLoss


class HiddenCosineLoss(StackedLoss):
    """Sum over embeddings and layers of 1 - cos(h_s, h_t), for each stack switched on.

    Per layer: mean over real tokens (Sanh et al. 2019, DistilBERT, section 3). The length of a
    state is not taught, only its direction. The states of a student of another width are projected
    to the teacher's (`Projections`).
    `reduction_over_layers="mean"` divides each stack's sum by its number of tensors.
    """

    requires = frozenset({HIDDEN_STATES})

    def __init__(
        self, encoder: bool = True, decoder: bool = True, reduction_over_layers: str = "sum"
    ) -> None:
        super().__init__(
            "hidden cosine loss", STATE_MASKS, (encoder, decoder), reduction_over_layers
        )
        self.projections = Projections(self.masks)

    def bind(self, student: Widths, teacher: Widths) -> None:
        """Make the projections that unequal widths need."""
        self.projections.bind(student, teacher)

    def pairs(
        self, student: Outputs, teacher: Outputs | None, attribute: str
    ) -> list[tuple[Tensor, Tensor]]:
        return self.projections.pairs(student, teacher, attribute)

    def term(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Float[Tensor, ""]:
        return cosine_distance(student, teacher, mask)


def cosine_distance(
    student: Float[Tensor, "batch length features"],
    teacher: Float[Tensor, "batch length features"],
    mask: Bool[Tensor, "batch length"],
) -> Float[Tensor, ""]:
    """Return the mean over real tokens of 1 - cos(student, teacher)."""
    # |u - v|^2 / 2 = 1 - cos for unit vectors, and exactly 0 for equal ones, where 1 - cos rounds.
    difference = F.normalize(student, dim=-1) - F.normalize(teacher, dim=-1)
    return masked_mean(difference.square().sum(-1) / 2, mask)
