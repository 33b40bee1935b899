"""Cross-entropy of the student's predictions with the teacher's probabilities."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dq_lightning.distillation.loss import Batch, Loss, Outputs, pair_logits
from dq_lightning.distillation.masking import masked_mean, target_mask


class SoftCrossEntropyLoss(Loss):
    """T^2 * mean over real tokens of -sum_v p_teacher(v) log p_student(v), p = softmax(z / T).

    Liu et al. 2023 (TBT) at T = 1; T^2 as in Hinton et al. 2015, section 2. It equals
    `LogitsKLLoss` plus the teacher's entropy times T^2: the same gradient, but the least value is
    that entropy, not 0.
    """

    zero_at_identity = False

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0.0:
            raise ValueError(
                f"temperature={temperature} of the soft cross-entropy must be positive, for "
                "instance 1 or 2"
            )
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Tensor, ""]:
        student_logits, teacher_logits = pair_logits(student, teacher)
        probabilities = F.softmax(teacher_logits / self.temperature, dim=-1)
        log_probabilities = F.log_softmax(student_logits / self.temperature, dim=-1)
        entropies = -(probabilities * log_probabilities).sum(-1)
        return masked_mean(entropies, target_mask(batch)) * self.temperature**2
