"""Kullback-Leibler divergence of the student's predictions from the teacher's."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dq_lightning.distillation.loss import Batch, Loss, Outputs, pair_logits
from dq_lightning.distillation.masking import masked_mean, target_mask


class LogitsKLLoss(Loss):
    """T^2 * mean over real tokens of KL(softmax(z_teacher / T) || softmax(z_student / T)), in nats.

    Hinton et al. 2015, section 2: T^2 keeps the gradient's size independent of the temperature.
    TBT (Liu et al. 2023) uses T = 1 through the soft cross-entropy, which differs by the
    teacher's entropy: the same gradient, but not 0 when the student equals the teacher.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0.0:
            raise ValueError(
                f"temperature={temperature} of the logits KL must be positive, for instance 1 or 2"
            )
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Tensor, ""]:
        student_logits, teacher_logits = pair_logits(student, teacher)
        divergence = F.kl_div(
            F.log_softmax(student_logits / self.temperature, dim=-1),
            F.log_softmax(teacher_logits / self.temperature, dim=-1),
            reduction="none",
            log_target=True,
        ).sum(-1)
        # Rounding can leave the mean of a converged student a hair below zero.
        return masked_mean(divergence, target_mask(batch)).clamp(min=0.0) * self.temperature**2
