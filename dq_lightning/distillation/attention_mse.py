"""Mean squared error between the attention maps of student and teacher."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dq_lightning.distillation.attention_kl import FLOOR
from dq_lightning.distillation.loss import ATTENTIONS, Widths, check_equal_heads
from dq_lightning.distillation.masking import masked_mean
from dq_lightning.distillation.stacked_loss import ATTENTION_MASKS, StackedLoss


class AttentionMSELoss(StackedLoss):
    """Sum over layers of the MSE of attention probabilities, for each stack that is switched on.

    Per layer: mean over heads and over pairs (query, key) of real tokens of (a_s - a_t)^2.
    Li et al. 2022 (DQ-BART). Differs from the released code, which averages over padding and
    over the zeros above the causal diagonal too: `mask="none"` does as it does, so a batch with
    more padding, or a decoder map, weighs less. `reduction_over_layers="mean"` divides each
    stack's sum by its number of layers.

    compare="scores" takes the scores before the softmax (Jiao et al. 2020, TinyBERT, section 3.1),
    less their mean over a query's real keys, because log-probabilities, which is what a recorded
    map holds of them, are the scores up to that constant. Differs from the paper in this constant
    alone, to which a softmax is blind; probabilities below 1e-8 count as that.
    """

    requires = frozenset({ATTENTIONS})

    def __init__(
        self,
        encoder: bool = True,
        decoder: bool = True,
        cross: bool = True,
        reduction_over_layers: str = "sum",
        mask: str = "real",
        compare: str = "probabilities",
    ) -> None:
        if compare not in ("probabilities", "scores"):
            raise ValueError(
                f"compare={compare!r} of the attention loss: write probabilities or scores"
            )
        if compare == "scores" and mask != "real":
            raise ValueError(
                "the attention loss on scores needs mask=real: a padding key has no score"
            )
        super().__init__(
            "attention loss",
            ATTENTION_MASKS,
            (encoder, decoder, cross),
            reduction_over_layers,
            mask,
        )
        self.on_scores = compare == "scores"

    def bind(self, student: Widths, teacher: Widths) -> None:
        """Raise ValueError when the maps of the two models differ in their number of heads."""
        check_equal_heads(self.masks, student, teacher)

    def term(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Float[Tensor, ""]:
        if self.on_scores:
            student, teacher = centred_scores(student, mask), centred_scores(teacher, mask)
        return attention_mse(student, teacher, mask)


def centred_scores(
    probabilities: Float[Tensor, "batch heads queries keys"],
    mask: Bool[Tensor, "batch queries keys"],
) -> Float[Tensor, "batch heads queries keys"]:
    """Return log-probabilities less their mean over a query's real keys, and 0 at other keys."""
    keys = mask.unsqueeze(1)
    logs = probabilities.clamp(min=FLOOR).log().masked_fill(~keys, 0.0)
    means = logs.sum(-1, keepdim=True) / keys.sum(-1, keepdim=True).clamp(min=1)
    return (logs - means).masked_fill(~keys, 0.0)


def attention_mse(
    student: Float[Tensor, "batch heads queries keys"],
    teacher: Float[Tensor, "batch heads queries keys"],
    mask: Bool[Tensor, "batch queries keys"],
) -> Float[Tensor, ""]:
    """Return the mean over heads and real (query, key) pairs of the squared difference."""
    return masked_mean(F.mse_loss(student, teacher, reduction="none").mean(1), mask)
