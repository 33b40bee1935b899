"""What losses over the layers of encoder and decoder share: the stacks, their masks, their sums."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from dq_lightning.distillation.loss import (
    Batch,
    LayerReduction,
    Loss,
    Outputs,
    check_layer_reduction,
    pair_layers,
    reduce_layers,
)
from dq_lightning.distillation.mask_choice import MaskOf, choose_mask
from dq_lightning.distillation.masking import (
    cross_mask,
    decoder_self_mask,
    encoder_self_mask,
    source_mask,
    target_mask,
)

ATTENTION_MASKS: Mapping[str, MaskOf] = {
    "encoder_attentions": encoder_self_mask,
    "decoder_attentions": decoder_self_mask,
    "cross_attentions": cross_mask,
}
STATE_MASKS: Mapping[str, MaskOf] = {
    "encoder_hidden_states": source_mask,
    "decoder_hidden_states": target_mask,
}


class StackedLoss(Loss, ABC):
    """Sum over the stacks that are switched on of the sum, or mean, of one term a layer.

    name: of the loss, for its errors. masks: attribute of the outputs -> its mask, in the order of
    `switches`. Raises ValueError when every switch is off.
    """

    def __init__(
        self,
        name: str,
        masks: Mapping[str, MaskOf],
        switches: tuple[bool, ...],
        reduction_over_layers: str,
        mask: str = "real",
    ) -> None:
        super().__init__()
        if not any(switches):
            stacks = [attribute.split("_")[0] for attribute in masks]
            raise ValueError(
                f"the {name} has {', '.join(stacks[:-1])} and {stacks[-1]} all false: switch one "
                "on, or set the weight of the loss to 0"
            )
        chosen = zip(masks.items(), switches, strict=True)
        self.masks = {
            name: choose_mask(mask_of, mask) for (name, mask_of), is_on in chosen if is_on
        }
        self.reduction_over_layers: LayerReduction = check_layer_reduction(reduction_over_layers)

    @abstractmethod
    def term(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Float[Tensor, ""]:
        """Compare the tensors of one layer; mask: what counts."""

    def pairs(
        self, student: Outputs, teacher: Outputs | None, attribute: str
    ) -> list[tuple[Tensor, Tensor]]:
        """Return the (student, teacher) tensors of a stack's layers."""
        return pair_layers(student, teacher, attribute)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Tensor, ""]:
        stacks: list[Tensor] = []
        for attribute, mask_of in self.masks.items():
            mask = mask_of(batch)
            terms = [self.term(s, t, mask) for s, t in self.pairs(student, teacher, attribute)]
            stacks.append(reduce_layers(terms, self.reduction_over_layers))
        return reduce_layers(stacks, "sum")
