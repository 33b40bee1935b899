"""Mean squared error between the logits of student and teacher."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dq_lightning.distillation.loss import Batch, Loss, Outputs, pair_logits
from dq_lightning.distillation.mask_choice import choose_mask
from dq_lightning.distillation.masking import masked_mean, target_mask


class LogitsMSELoss(Loss):
    """MSE of the logits: mean over real tokens and the vocabulary of (z_student - z_teacher)^2.

    Li et al. 2022 (DQ-BART). Differs from the released code, which averages over padding too:
    here only real target tokens count. `mask="none"` does as the released code does, where what the
    student predicts after the end of a short target pulls on it as much as the target itself.
    """

    def __init__(self, mask: str = "real") -> None:
        super().__init__()
        self.mask_of = choose_mask(target_mask, mask)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Tensor, ""]:
        student_logits, teacher_logits = pair_logits(student, teacher)
        errors = F.mse_loss(student_logits, teacher_logits, reduction="none").mean(-1)
        return masked_mean(errors, self.mask_of(batch))
