"""Kullback-Leibler divergence over the teacher's most likely tokens and one class for the rest."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dq_lightning.distillation.loss import Batch, Loss, Outputs, pair_logits
from dq_lightning.distillation.masking import masked_mean, target_mask


class TopKKLLoss(Loss):
    """T^2 * mean over real tokens of KL(P_teacher || P_student) over k + 1 classes, in nats.

    The classes are the teacher's k most likely tokens and "any other token", so both sides stay
    distributions and the loss a true divergence; it never exceeds `LogitsKLLoss` (merging classes
    cannot raise a divergence) and equals it when k reaches the vocabulary less one. The tail's
    total is taught, its shape is not.
    """

    def __init__(self, k: int = 20, temperature: float = 1.0) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k={k} of the top-k KL must be at least 1, for instance 20")
        if not temperature > 0.0:
            raise ValueError(
                f"temperature={temperature} of the top-k KL must be positive, for instance 1 or 2"
            )
        self.k = k
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Tensor, ""]:
        student_logits, teacher_logits = pair_logits(student, teacher)
        # With one token left over, that token is the rest: nothing would be merged.
        k = min(self.k, teacher_logits.shape[-1] - 1)
        top = teacher_logits.topk(k, dim=-1).indices
        divergence = F.kl_div(
            merged_log_probabilities(student_logits / self.temperature, top),
            merged_log_probabilities(teacher_logits / self.temperature, top),
            reduction="none",
            log_target=True,
        ).sum(-1)
        # Rounding can leave the mean of a converged student a hair below zero.
        return masked_mean(divergence, target_mask(batch)).clamp(min=0.0) * self.temperature**2


def merged_log_probabilities(
    logits: Float[Tensor, "batch target vocab"], top: Int[Tensor, "batch target k"]
) -> Float[Tensor, "batch target k_and_rest"]:
    """Return the log-probabilities of the tokens `top`, and last that of all others together."""
    log_probabilities = F.log_softmax(logits, dim=-1)
    # Not log(1 - sum of the top): that cancels when the top holds nearly everything.
    rest = log_probabilities.scatter(-1, top, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([log_probabilities.gather(-1, top), rest], dim=-1)
