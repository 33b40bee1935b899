"""Masks of real tokens and means over them; padding never counts."""

from jaxtyping import Bool, Float
from torch import Tensor

from dq_lightning.distillation.loss import Batch

IGNORE_INDEX = -100


def source_mask(batch: Batch) -> Bool[Tensor, "batch source"]:
    """Return True where the encoder reads a real token (`attention_mask` = 1)."""
    return batch["attention_mask"].bool()


def target_mask(batch: Batch) -> Bool[Tensor, "batch target"]:
    """Return True where the decoder is asked for a real token (`labels` != -100)."""
    return batch["labels"] != IGNORE_INDEX


def encoder_self_mask(batch: Batch) -> Bool[Tensor, "batch source source"]:
    """Return True where a real source token looks at a real source token."""
    return outer_mask(source_mask(batch), source_mask(batch))


def decoder_self_mask(batch: Batch) -> Bool[Tensor, "batch target target"]:
    """Return True where a real target token i looks at a real target token j <= i.

    The entries above the diagonal are zero by construction in every model; counting them would
    only divide the loss of long targets by two.
    """
    return outer_mask(target_mask(batch), target_mask(batch)).tril()


def cross_mask(batch: Batch) -> Bool[Tensor, "batch target source"]:
    """Return True where a real target token looks at a real source token."""
    return outer_mask(target_mask(batch), source_mask(batch))


def outer_mask(
    queries: Bool[Tensor, "batch queries"], keys: Bool[Tensor, "batch keys"]
) -> Bool[Tensor, "batch queries keys"]:
    """Return queries[b, i] AND keys[b, j]."""
    return queries.unsqueeze(-1) & keys.unsqueeze(-2)


def masked_mean(
    values: Float[Tensor, "batch *positions"], mask: Bool[Tensor, "batch *positions"]
) -> Float[Tensor, ""]:
    """Return sum(values[mask]) / count(mask), and 0 when nothing is real.

    The caller reduces features or heads first, so the mask meets the smallest tensor.
    """
    assert values.shape == mask.shape, f"values {values.shape} do not fit the mask {mask.shape}"
    return values.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)
