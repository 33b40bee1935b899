"""Optimizer groups: weight decay on matrices only."""

from typing import Any

from torch import nn


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Two groups, matrices first; biases and norms (one dimension) get no weight decay.

    The optimizer's own `weight_decay` holds for the first group.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
