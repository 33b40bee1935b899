"""Mean squared error between the logits of student and teacher."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dq_lightning.distillation.loss import Batch, Loss, Outputs, pair_logits
from dq_lightning.distillation.masking import masked_mean, target_mask


class LogitsMSELoss(Loss):
    """MSE of the logits: mean over real tokens and the vocabulary of (z_student - z_teacher)^2.

    Li et al. 2022 (DQ-BART). Differs from the released code, which averages over padding too:
    here only real target tokens count.
    """

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Tensor, ""]:
        student_logits, teacher_logits = pair_logits(student, teacher)
        errors = F.mse_loss(student_logits, teacher_logits, reduction="none").mean(-1)
        return masked_mean(errors, target_mask(batch))
