"""Cosine distance between the hidden states of student and teacher."""

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
from dq_lightning.distillation.masking import masked_mean, source_mask, target_mask
from dq_lightning.distillation.projections import Projections


class HiddenCosineLoss(Loss):
    """Sum over embeddings and layers of 1 - cos(h_s, h_t), for each stack switched on.

    Per layer: mean over real tokens (Sanh et al. 2019, DistilBERT, section 3). The length of a
    state is not taught, only its direction. The states of a student of another width are projected
    to the teacher's (`Projections`).
    `reduction_over_layers="mean"` divides each stack's sum by its number of tensors.
    """

    requires = frozenset({HIDDEN_STATES})

    def __init__(
        self, encoder: bool = True, decoder: bool = True, reduction_over_layers: str = "sum"
    ) -> None:
        super().__init__()
        if not (encoder or decoder):
            raise ValueError(
                "the hidden cosine loss has encoder and decoder both false: switch one on, or set "
                "the weight of the loss to 0"
            )
        switches = {
            "encoder_hidden_states": (encoder, source_mask),
            "decoder_hidden_states": (decoder, target_mask),
        }
        self.masks = {name: mask for name, (is_on, mask) in switches.items() if is_on}
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
            terms = [cosine_distance(s, t, mask) for s, t in pairs]
            stacks.append(reduce_layers(terms, self.reduction_over_layers))
        return reduce_layers(stacks, "sum")


def cosine_distance(
    student: Float[Tensor, "batch length features"],
    teacher: Float[Tensor, "batch length features"],
    mask: Bool[Tensor, "batch length"],
) -> Float[Tensor, ""]:
    """Return the mean over real tokens of 1 - cos(student, teacher)."""
    # |u - v|^2 / 2 = 1 - cos for unit vectors, and exactly 0 for equal ones, where 1 - cos rounds.
    difference = F.normalize(student, dim=-1) - F.normalize(teacher, dim=-1)
    return masked_mean(difference.square().sum(-1) / 2, mask)
