"""Mean squared error between the hidden states of student and teacher."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dq_lightning.distillation.loss import (
    HIDDEN_STATES,
    Batch,
    LayerReduction,
    Loss,
    Outputs,
    Widths,
    check_layer_reduction,
    reduce_layers,
)
from dq_lightning.distillation.mask_choice import choose_mask
from dq_lightning.distillation.masking import masked_mean, source_mask, target_mask
from dq_lightning.distillation.projections import Projections


class HiddenStateMSELoss(Loss):
    """Sum over embeddings and layers of the MSE of hidden states, for each stack switched on.

    Per layer: mean over real tokens and features of (h_s - h_t)^2. Li et al. 2022 (DQ-BART).
    Differs from the released code, which averages over padding too (`mask="none"` does as it
    does) and counts the last encoder state once more, summed over the batch (`LastEncoderMSELoss`).
    `reduction_over_layers="mean"` divides each stack's sum by its number of tensors, so that the
    weight of the loss need not change with the student's depth. The states of a student of another
    width are projected to the teacher's (`Projections`).
    """

    requires = frozenset({HIDDEN_STATES})

    def __init__(
        self,
        encoder: bool = True,
        decoder: bool = True,
        reduction_over_layers: str = "sum",
        mask: str = "real",
    ) -> None:
        super().__init__()
        if not (encoder or decoder):
            raise ValueError(
                "the hidden-state loss has encoder and decoder both false: switch one on, or set "
                "the weight of the loss to 0"
            )
        switches = {
            "encoder_hidden_states": (encoder, source_mask),
            "decoder_hidden_states": (decoder, target_mask),
        }
        self.masks = {
            name: choose_mask(mask_of, mask) for name, (is_on, mask_of) in switches.items() if is_on
        }
        self.projections = Projections(self.masks)
        self.reduction_over_layers: LayerReduction = check_layer_reduction(reduction_over_layers)

    def bind(self, student: Widths, teacher: Widths) -> None:
        """Make the projections that unequal widths need."""
        self.projections.bind(student, teacher)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Tensor, ""]:
        stacks: list[Tensor] = []
        for attribute, mask_of in self.masks.items():
            mask = mask_of(batch)
            pairs = self.projections.pairs(student, teacher, attribute)
            terms = [hidden_mse(s, t, mask) for s, t in pairs]
            stacks.append(reduce_layers(terms, self.reduction_over_layers))
        return reduce_layers(stacks, "sum")


def hidden_mse(
    student: Float[Tensor, "batch length features"],
    teacher: Float[Tensor, "batch length features"],
    mask: Bool[Tensor, "batch length"],
) -> Float[Tensor, ""]:
    """Return the mean over real tokens and features of the squared difference."""
    return masked_mean(F.mse_loss(student, teacher, reduction="none").mean(-1), mask)
