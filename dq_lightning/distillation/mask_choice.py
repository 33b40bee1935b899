"""What a mean counts: real tokens, or every position as DQ-BART's released code does."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from dq_lightning.distillation.loss import Batch

MaskOf = Callable[[Batch], Tensor]


def choose_mask(mask_of: MaskOf, choice: str) -> MaskOf:
    """Return `mask_of` for "real", a mask of its shape that is True everywhere for "none".

    With "none" the loss depends on what padding holds and on how much of it there is. Raises
    ValueError for another word.
    """
    if choice == "real":
        return mask_of
    if choice == "none":
        return partial(_everywhere, mask_of)
    raise ValueError(
        f"mask={choice!r} of a loss is unknown: write real (padding does not count) or none "
        "(padding counts, as in DQ-BART's released code)"
    )


def _everywhere(mask_of: MaskOf, batch: Batch) -> Tensor:
    return torch.ones_like(mask_of(batch))
