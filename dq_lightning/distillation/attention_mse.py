"""Mean squared error between the attention maps of student and teacher."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dq_lightning.distillation.loss import (
    ATTENTIONS,
    Batch,
    LayerReduction,
    Loss,
    Outputs,
    Widths,
    check_equal_heads,
    check_layer_reduction,
    pair_layers,
    reduce_layers,
)
from dq_lightning.distillation.mask_choice import choose_mask
from dq_lightning.distillation.masking import (
    cross_mask,
    decoder_self_mask,
    encoder_self_mask,
    masked_mean,
)


class AttentionMSELoss(Loss):
    """Sum over layers of the MSE of attention probabilities, for each stack that is switched on.

    Per layer: mean over heads and over pairs (query, key) of real tokens of (a_s - a_t)^2.
    Li et al. 2022 (DQ-BART). Differs from the released code, which averages over padding and
    over the zeros above the causal diagonal too: `mask="none"` does as it does, so a batch with
    more padding, or a decoder map, weighs less. `reduction_over_layers="mean"` divides each
    stack's sum by its number of layers.
    """

    requires = frozenset({ATTENTIONS})

    def __init__(
        self,
        encoder: bool = True,
        decoder: bool = True,
        cross: bool = True,
        reduction_over_layers: str = "sum",
        mask: str = "real",
    ) -> None:
        super().__init__()
        if not (encoder or decoder or cross):
            raise ValueError(
                "the attention loss has encoder, decoder and cross all false: switch one on, or "
                "set the weight of the loss to 0"
            )
        switches = {
            "encoder_attentions": (encoder, encoder_self_mask),
            "decoder_attentions": (decoder, decoder_self_mask),
            "cross_attentions": (cross, cross_mask),
        }
        self.masks = {
            name: choose_mask(mask_of, mask) for name, (is_on, mask_of) in switches.items() if is_on
        }
        self.reduction_over_layers: LayerReduction = check_layer_reduction(reduction_over_layers)

    def bind(self, student: Widths, teacher: Widths) -> None:
        """Raise ValueError when the maps of the two models differ in their number of heads."""
        check_equal_heads(self.masks, student, teacher)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Tensor, ""]:
        stacks: list[Tensor] = []
        for attribute, mask_of in self.masks.items():
            mask = mask_of(batch)
            terms = [attention_mse(s, t, mask) for s, t in pair_layers(student, teacher, attribute)]
            stacks.append(reduce_layers(terms, self.reduction_over_layers))
        return reduce_layers(stacks, "sum")


def attention_mse(
    student: Float[Tensor, "batch heads queries keys"],
    teacher: Float[Tensor, "batch heads queries keys"],
    mask: Bool[Tensor, "batch queries keys"],
) -> Float[Tensor, ""]:
    """Return the mean over heads and real (query, key) pairs of the squared difference."""
    return masked_mean(F.mse_loss(student, teacher, reduction="none").mean(1), mask)
