"""Mean squared error of the encoder's last state: DQ-BART's extra hidden-state term."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dq_lightning.distillation.loss import HIDDEN_STATES, Batch, Loss, Outputs, Widths
from dq_lightning.distillation.mask_choice import choose_mask
from dq_lightning.distillation.masking import masked_mean, source_mask
from dq_lightning.distillation.projections import Projections

STATES = "encoder_hidden_states"


class LastEncoderMSELoss(Loss):
    """MSE of the last encoder state alone: mean over real tokens and features of (h_s - h_t)^2.

    Li et al. 2022 (DQ-BART). Differs from the released code, which averages over padding
    (`mask="none"`) and loops over the batch axis as if it were the layers', so that its term is
    the sum of one mean per sample (`reduction_over_batch="sum"`): the weight of the loss then
    grows with the batch size. `HiddenStateMSELoss` counts the same state among its layers. A
    student of another width is projected to the teacher's (`Projections`).
    """

    requires = frozenset({HIDDEN_STATES})

    def __init__(self, mask: str = "real", reduction_over_batch: str = "mean") -> None:
        super().__init__()
        if reduction_over_batch not in ("mean", "sum"):
            raise ValueError(
                f"reduction_over_batch={reduction_over_batch!r} of the last-encoder loss is "
                "unknown: write mean or sum"
            )
        self.projections = Projections([STATES])
        self.mask_of = choose_mask(source_mask, mask)
        self.sums_over_batch = reduction_over_batch == "sum"

    def bind(self, student: Widths, teacher: Widths) -> None:
        """Make the projections that unequal widths need."""
        self.projections.bind(student, teacher)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Tensor, ""]:
        last_student, last_teacher = self.projections.pairs(student, teacher, STATES)[-1]
        errors = F.mse_loss(last_student, last_teacher, reduction="none").mean(-1)
        mask = self.mask_of(batch)
        return sum_of_means(errors, mask) if self.sums_over_batch else masked_mean(errors, mask)


def sum_of_means(
    values: Float[Tensor, "batch length"], mask: Bool[Tensor, "batch length"]
) -> Float[Tensor, ""]:
    """Return the sum over samples of each sample's mean over its masked positions."""
    return (values.masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)).sum()
