"""Divergence between the token-to-token relations that hidden states span."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dq_lightning.distillation.attention_kl import masked_log_softmax, row_kl
from dq_lightning.distillation.loss import HIDDEN_STATES, Batch, Loss, Outputs, pair_layers
from dq_lightning.distillation.masking import decoder_self_mask, encoder_self_mask


class HiddenRelationsLoss(Loss):
    """KL of the last layer's self-relations, for each stack that is switched on.

    The state is split into `relation_heads` parts h_r of width d_r; R_r = softmax(h_r h_r^T /
    sqrt(d_r)) over real keys (causal in the decoder); the loss is the mean over relation heads and
    real queries of KL(R_teacher || R_student), in nats. Widths and attention heads of the two
    models may differ: the relations have the same shape (Wang et al. 2021, MiniLMv2, section 3.1).
    Differs from MiniLM, which relates the queries, keys and values of the attention: models do
    not record these, so the relations here are those of the layer's output.
    """

    requires = frozenset({HIDDEN_STATES})

    def __init__(self, encoder: bool = True, decoder: bool = True, relation_heads: int = 4) -> None:
        super().__init__()
        if not (encoder or decoder):
            raise ValueError(
                "the hidden-relations loss has encoder and decoder both false: switch one on, or "
                "set the weight of the loss to 0"
            )
        if relation_heads < 1:
            raise ValueError(f"relation_heads={relation_heads} must be at least 1, for instance 4")
        switches = {
            "encoder_hidden_states": (encoder, encoder_self_mask),
            "decoder_hidden_states": (decoder, decoder_self_mask),
        }
        self.masks = {name: mask for name, (is_on, mask) in switches.items() if is_on}
        self.relation_heads = relation_heads

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Tensor, ""]:
        terms: list[Tensor] = []
        for attribute, mask_of in self.masks.items():
            pair = pair_layers(student, teacher, attribute, free_axis=2)[-1]
            heads = [split_heads(state, self.relation_heads) for state in pair]
            # Autocast would lower the products to half precision.
            with torch.autocast(pair[0].device.type, enabled=False):
                terms.append(relation_kl(heads[0], heads[1], mask_of(batch)))
        return torch.stack(terms).sum()


def split_heads(
    states: Float[Tensor, "batch length features"], heads: int
) -> Float[Tensor, "batch heads length width"]:
    """Return the features cut into `heads` equal parts; raise when they do not divide."""
    if states.shape[-1] % heads:
        raise ValueError(
            f"hidden states of shape {tuple(states.shape)} cannot be split into "
            f"relation_heads={heads}: choose a divisor of both models' widths"
        )
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def relation_kl(
    student: Float[Tensor, "batch heads length student_width"],
    teacher: Float[Tensor, "batch heads length teacher_width"],
    mask: Bool[Tensor, "batch length length"],
) -> Float[Tensor, ""]:
    """Return the mean over heads and real queries of KL(R_teacher || R_student)."""
    logs = [
        masked_log_softmax(part @ part.mT / part.shape[-1] ** 0.5, mask.unsqueeze(1))
        for part in (student, teacher)
    ]
    return row_kl(logs[0], logs[1], mask)
