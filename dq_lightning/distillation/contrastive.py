"""Token-level contrastive distillation on the decoder's last hidden state."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dq_lightning.distillation.attention_kl import masked_log_softmax
from dq_lightning.distillation.loss import HIDDEN_STATES, Batch, Loss, Outputs, Widths
from dq_lightning.distillation.masking import masked_mean, outer_mask, target_mask
from dq_lightning.distillation.projections import Projections

STATES = "decoder_hidden_states"


class ContrastiveLoss(Loss):
    """Mean over real target tokens i of -log softmax_j(cos(h_s[i], h_t[j]) / tau) at j = i.

    h is the last decoder state and j runs over the real tokens of the same sample: a token's
    positive is the teacher's representation of it, its negatives are the teacher's of the others
    (Tao et al. 2022, QuantBART, section on token-level contrastive distillation). Differs from
    the paper, which compares a memory bank of the student's representations, updated with
    momentum: here they are the ones of this step. Above 0 even at student = teacher, by the
    negatives' share; a target of one token gives 0. A student of another width is projected to the
    teacher's (`Projections`).
    """

    requires = frozenset({HIDDEN_STATES})
    zero_at_identity = False

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0.0:
            raise ValueError(
                f"temperature={temperature} of the contrastive loss must be positive, for "
                "instance 0.1"
            )
        self.projections = Projections([STATES])
        self.temperature = temperature

    def bind(self, student: Widths, teacher: Widths) -> None:
        """Make the projections that unequal widths need."""
        self.projections.bind(student, teacher)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Tensor, ""]:
        last_student, last_teacher = self.projections.pairs(student, teacher, STATES)[-1]
        # Autocast would lower the product to half precision.
        with torch.autocast(last_student.device.type, enabled=False):
            return info_nce(last_student, last_teacher, target_mask(batch), self.temperature)


def info_nce(
    student: Float[Tensor, "batch length features"],
    teacher: Float[Tensor, "batch length features"],
    mask: Bool[Tensor, "batch length"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Return the mean over real tokens of the negative log-share of each token's own partner."""
    cosines = F.normalize(student, dim=-1) @ F.normalize(teacher, dim=-1).mT
    shares = masked_log_softmax(cosines / temperature, outer_mask(mask, mask))
    return masked_mean(-shares.diagonal(dim1=-2, dim2=-1), mask)
