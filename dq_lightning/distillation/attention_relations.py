"""Divergence between the token-to-token relations of queries, keys and values."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dq_lightning.distillation.attention_kl import masked_log_softmax, row_kl
from dq_lightning.distillation.loss import (
    KEY_STATES,
    QUERY_STATES,
    VALUE_STATES,
    Batch,
    Loss,
    Outputs,
    Widths,
    pair_layers,
    reduce_layers,
)
from dq_lightning.distillation.masking import decoder_self_mask, encoder_self_mask


class AttentionRelationsLoss(Loss):
    """Weighted sum of Q-Q, K-K and V-V relation divergences, for each stack that is switched on.

    The queries of all heads, side by side, are split anew into `relation_heads` parts q_r of width
    d_r; R_r = softmax(q_r q_r^T / sqrt(d_r)) over real keys (causal in the decoder); the term is
    the mean over relation heads and real queries of KL(R_teacher || R_student), in nats; keys and
    values alike. Attention heads and widths of the two models may differ: the relations have the
    same shape. Wang et al. 2021 (MiniLMv2), section 3; `layers="last"` compares the student's last
    layer with the teacher's that it is mapped to (their upper middle layer, for a large teacher, is
    a matter of student.encoder_mapping). Differs from MiniLMv2, which distils encoders: the decoder
    of a sequence-to-sequence model has its term too, over the past alone.
    """

    def __init__(
        self,
        encoder: bool = True,
        decoder: bool = True,
        query: float = 1.0,
        key: float = 1.0,
        value: float = 1.0,
        relation_heads: int = 8,
        layers: str = "last",
    ) -> None:
        super().__init__()
        weights = {QUERY_STATES: query, KEY_STATES: key, VALUE_STATES: value}
        _check(weights, encoder or decoder, relation_heads, layers)
        switches = {
            "encoder": (encoder, encoder_self_mask),
            "decoder": (decoder, decoder_self_mask),
        }
        self.masks = {stack: mask for stack, (is_on, mask) in switches.items() if is_on}
        self.weights = {kind: weight for kind, weight in weights.items() if weight > 0.0}
        self.requires = frozenset(self.weights)
        self.relation_heads = relation_heads
        self.first_layer = -1 if layers == "last" else 0

    def bind(self, student: Widths, teacher: Widths) -> None:
        """Raise ValueError when an attention width cannot be split into the relation heads."""
        divisible = math.gcd(student.attention, teacher.attention)
        if divisible % self.relation_heads:
            raise ValueError(
                f"relation_heads={self.relation_heads} of the attention-relations loss does not "
                f"divide the attention widths of student ({student.attention}) and teacher "
                f"({teacher.attention}): write a divisor of {divisible}"
            )

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Tensor, ""]:
        terms: list[Tensor] = []
        for stack, mask_of in self.masks.items():
            mask = mask_of(batch)
            for kind, weight in self.weights.items():
                pairs = pair_layers(student, teacher, f"{stack}_{kind}", free_axis=2)
                layers = [self._term(*pair, mask) for pair in pairs[self.first_layer :]]
                terms.append(weight * reduce_layers(layers, "mean"))
        return torch.stack(terms).sum()

    def _term(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        heads = [split_heads(states, self.relation_heads) for states in (student, teacher)]
        # Autocast would lower the products to half precision.
        with torch.autocast(student.device.type, enabled=False):
            return relation_kl(heads[0], heads[1], mask)


def split_heads(
    states: Float[Tensor, "batch length features"], heads: int
) -> Float[Tensor, "batch heads length width"]:
    """Return the features cut into `heads` equal parts; raise when they do not divide."""
    if states.shape[-1] % heads:
        raise ValueError(
            f"states of shape {tuple(states.shape)} cannot be split into relation_heads={heads}: "
            "choose a divisor of both models' attention widths"
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


def _check(
    weights: Mapping[str, object], any_stack: bool, relation_heads: int, layers: str
) -> None:
    if not any_stack:
        raise ValueError(
            "the attention-relations loss has encoder and decoder both false: switch one on, or "
            "set the weight of the loss to 0"
        )
    for kind, weight in weights.items():
        if not (isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0.0):
            name = kind.removesuffix("_states")
            raise ValueError(
                f"{name}={weight} of the attention-relations loss must be a finite number of at "
                "least 0; 0 leaves the relation out"
            )
    if not any(weights.values()):
        raise ValueError(
            "the attention-relations loss has query, key and value all 0: give one a weight, or "
            "set the weight of the loss to 0"
        )
    if relation_heads < 1:
        raise ValueError(f"relation_heads={relation_heads} must be at least 1, for instance 8")
    if layers not in ("last", "all"):
        raise ValueError(f"layers={layers!r} of the attention-relations loss: write last or all")
