"""Mean squared error between the hidden states of student and teacher."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dq_lightning.distillation.loss import HIDDEN_STATES, Outputs, Widths
from dq_lightning.distillation.masking import masked_mean
from dq_lightning.distillation.projections import Projections
from dq_lightning.distillation.stacked_loss import STATE_MASKS, StackedLoss


class HiddenStateMSELoss(StackedLoss):
    """Sum over embeddings and layers of the MSE of hidden states, for each stack switched on.

    Per layer: mean over real tokens and features of (h_s - h_t)^2. Li et al. 2022 (DQ-BART).
    Differs from the released code, which averages over padding too (`mask="none"` does as it
    does) and counts the last encoder state once more, summed over the batch (`LastEncoderMSELoss`).
    `reduction_over_layers="mean"` divides each stack's sum by its number of tensors, so that the
    weight of the loss need not change with the student's depth. The states of a student of another
    width are projected to the teacher's (`Projections`).
    """

    requires = frozenset({HIDDEN_STATES})

    def __init__(
        self,
        encoder: bool = True,
        decoder: bool = True,
        reduction_over_layers: str = "sum",
        mask: str = "real",
    ) -> None:
        super().__init__(
            "hidden-state loss", STATE_MASKS, (encoder, decoder), reduction_over_layers, mask
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
        return hidden_mse(student, teacher, mask)


def hidden_mse(
    student: Float[Tensor, "batch length features"],
    teacher: Float[Tensor, "batch length features"],
    mask: Bool[Tensor, "batch length"],
) -> Float[Tensor, ""]:
    """Return the mean over real tokens and features of the squared difference."""
    return masked_mean(F.mse_loss(student, teacher, reduction="none").mean(-1), mask)
