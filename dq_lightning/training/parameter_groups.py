"""Optimizer groups: weight decay on matrices only, rates of their own for some parameters."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn
from torch.nn import Parameter

from dq_lightning.quantization.fake_quantizer import FakeQuantizer

_SCALES, _EMBEDDINGS = "scales", "embeddings"


def has_learned_scales(model: nn.Module) -> bool:
    """Whether some fake quantizer has Parameters of its own."""
    quantizers = (module for module in model.modules() if isinstance(module, FakeQuantizer))
    return any(True for quantizer in quantizers for _ in quantizer.parameters())


def depth_scaled(lr: float, teacher_layers: int, student_layers: int, exponent: float) -> float:
    """The rate at the student's depth: lr (teacher layers / student layers)^exponent.

    Adam's best rate falls with the root of the number of residual layers (exponent 0.5; Yang et
    al. 2024, "Feature learning in infinite-depth neural networks", arXiv 2310.02244, section 4).

    >>> depth_scaled(1e-3, 12, 3, 0.5)
    0.002
    """
    return lr * (teacher_layers / student_layers) ** exponent


def parameter_groups(
    model: nn.Module,
    scale_lr: float | None = None,
    embeddings: Iterable[Parameter] = (),
    embedding_lr: float | None = None,
) -> list[dict[str, Any]]:
    """Matrices; biases and norms (one dimension), without weight decay; learned scales, likewise.

    The third group holds every Parameter of a fake quantizer and exists only where there is one;
    so does a fourth of the `embeddings` where `embedding_lr` is given. scale_lr, embedding_lr: the
    rates of these two, which the schedule multiplies like the others'; None: as the others'.
    The optimizer's own `weight_decay` holds for the first and the fourth group.
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
    apart = {id(p) for p in embeddings} if embedding_lr is not None else set[int]()
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim >= 2 and id(p) not in apart]},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
    ]
    if scales:
        rate = {} if scale_lr is None else {"lr": scale_lr}
        groups.append({"params": scales, "weight_decay": 0.0, "name": _SCALES, **rate})
    if apart:
        vocabulary = [p for p in others if id(p) in apart]
        groups.append({"params": vocabulary, "name": _EMBEDDINGS, "lr": embedding_lr})
    return groups


def learning_rates(groups: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The present rates by name: `lr`, and `scale_lr` and `embedding_lr` where there are any."""
    names = {_SCALES: "scale_lr", _EMBEDDINGS: "embedding_lr"}
    own = {names[group["name"]]: group["lr"] for group in groups if group.get("name") in names}
    return {"lr": groups[0]["lr"], **own}
