"""Optimizer groups: weight decay on matrices only, a rate of their own for learned scales."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from dq_lightning.quantization.fake_quantizer import FakeQuantizer

_SCALES = "scales"


def has_learned_scales(model: nn.Module) -> bool:
    """Whether some fake quantizer has Parameters of its own."""
    quantizers = (module for module in model.modules() if isinstance(module, FakeQuantizer))
    return any(True for quantizer in quantizers for _ in quantizer.parameters())


def parameter_groups(model: nn.Module, scale_lr: float | None = None) -> list[dict[str, Any]]:
    """Matrices; biases and norms (one dimension), without weight decay; learned scales, likewise.

    The third group holds every Parameter of a fake quantizer and exists only where there is one.
    scale_lr: its learning rate, which the schedule multiplies like the others'; None: theirs.
    The optimizer's own `weight_decay` holds for the first group.
    """
    learned = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, FakeQuantizer)
        for parameter in module.parameters()
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    scales = [p for p in trained if id(p) in learned]
    others = [p for p in trained if id(p) not in learned]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim >= 2]},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
    ]
    if scales:
        rate = {} if scale_lr is None else {"lr": scale_lr}
        groups.append({"params": scales, "weight_decay": 0.0, "name": _SCALES, **rate})
    return groups


def learning_rates(groups: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The present rates by name: `lr`, and `scale_lr` where scales are learned."""
    scales = [group["lr"] for group in groups if group.get("name") == _SCALES]
    return {"lr": groups[0]["lr"], **({"scale_lr": scales[0]} if scales else {})}
