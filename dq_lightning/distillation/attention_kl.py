"""Kullback-Leibler divergence between the attention distributions of student and teacher."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dq_lightning.distillation.loss import ATTENTIONS, Widths, check_equal_heads
from dq_lightning.distillation.masking import masked_mean
from dq_lightning.distillation.stacked_loss import ATTENTION_MASKS, StackedLoss

FLOOR = 1e-8
"""Least probability of a real key: one that underflowed, or was quantized to 0, costs log 1e8."""


class AttentionKLLoss(StackedLoss):
    """Sum over layers of KL(a_teacher || a_student), for each stack that is switched on.

    Per layer: mean over heads and real queries of sum_k a_t(k) (log a_t(k) - log a_s(k)) over the
    real keys k (Wang et al. 2020, MiniLM, section 3.1), in nats. Both sides are probabilities, as
    the models record them; the KL of scores is this one, since softmax(scores) = a. Differs from
    the formula where a probability is below 1e-8: it is raised to that, so that the loss and its
    gradient stay finite.
    `reduction_over_layers="mean"` divides each stack's sum by its number of layers.
    """

    requires = frozenset({ATTENTIONS})

    def __init__(
        self,
        encoder: bool = True,
        decoder: bool = True,
        cross: bool = True,
        reduction_over_layers: str = "sum",
    ) -> None:
        super().__init__(
            "attention KL", ATTENTION_MASKS, (encoder, decoder, cross), reduction_over_layers
        )

    def bind(self, student: Widths, teacher: Widths) -> None:
        """Raise ValueError when the maps of the two models differ in their number of heads."""
        check_equal_heads(self.masks, student, teacher)

    def term(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Float[Tensor, ""]:
        return attention_kl(student, teacher, mask)


def attention_kl(
    student: Float[Tensor, "batch heads queries keys"],
    teacher: Float[Tensor, "batch heads queries keys"],
    mask: Bool[Tensor, "batch queries keys"],
) -> Float[Tensor, ""]:
    """Return the mean over heads and queries with a real key of KL(teacher || student)."""
    keys = mask.unsqueeze(1)
    return row_kl(
        masked_log_softmax(student.clamp(min=FLOOR).log(), keys),
        masked_log_softmax(teacher.clamp(min=FLOOR).log(), keys),
        mask,
    )


def row_kl(
    student: Float[Tensor, "batch heads queries keys"],
    teacher: Float[Tensor, "batch heads queries keys"],
    mask: Bool[Tensor, "batch queries keys"],
) -> Float[Tensor, ""]:
    """Return the mean over heads and real queries of KL between rows of log-probabilities."""
    terms = F.kl_div(student, teacher, reduction="none", log_target=True)
    rows = terms.masked_fill(~mask.unsqueeze(1), 0.0).sum(-1).mean(1)
    # Rounding can leave the mean of a converged student a hair below zero.
    return masked_mean(rows, mask.any(-1)).clamp(min=0.0)


def masked_log_softmax(
    scores: Float[Tensor, "*groups keys"], mask: Bool[Tensor, "*#groups keys"]
) -> Float[Tensor, "*groups keys"]:
    """Return the log-softmax over the keys in `mask`; the others hold large negative numbers.

    Of log-probabilities it renormalises over those keys, which changes nothing where a model
    masked the others out itself.
    """
    # Finite, so that a row without any key is uniform and not NaN before it is masked away.
    return F.log_softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min / 2), dim=-1)
