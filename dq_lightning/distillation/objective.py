"""The weighted sum of named losses that a training step minimises."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dq_lightning.distillation.loss import Batch, Loss, Outputs, Widths


@dataclass(frozen=True)
class ObjectiveOutput:
    """`total` carries the gradient; `parts` are the unweighted terms, detached, for logging."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]


class Objective(nn.Module):
    """total = sum over names of weights[name] * losses[name](student, teacher, batch).

    A loss of weight 0 is dropped: it is not computed and requires nothing. fade: of some names, the
    fraction of all steps in which the weight falls in a straight line to 0 (None: it does not).
    What has faded is computed still, so that its curve goes on. Raises ValueError when losses and
    weights differ in their names, a weight is not a finite number >= 0, or a fraction is not in
    (0, 1].
    """

    def __init__(
        self,
        losses: Mapping[str, Loss],
        weights: Mapping[str, float],
        fade: Mapping[str, float | None] | None = None,
    ) -> None:
        super().__init__()
        _check_names(losses, weights)
        self.fade = {name: _checked_fade(name, end, losses) for name, end in (fade or {}).items()}
        self.weights = {name: _checked_weight(name, weights[name]) for name in losses}
        self.weights = {name: weight for name, weight in self.weights.items() if weight > 0.0}
        if not self.weights:
            raise ValueError(
                "the objective has no loss with a positive weight: set one, for instance "
                "distill.weights.task=1"
            )
        self.losses = nn.ModuleDict({name: losses[name] for name in self.weights})
        kept = [losses[name] for name in self.weights]
        self.requires: frozenset[str] = frozenset[str]().union(*(loss.requires for loss in kept))
        self.needs_teacher = any(loss.needs_teacher for loss in kept)
        self._kept = kept
        self._teacher_terms = [name for name in self.weights if losses[name].needs_teacher]

    def bind(self, student: Widths, teacher: Widths) -> None:
        """Tell every loss how wide the models are, before the optimizer is built."""
        for loss in self._kept:
            loss.bind(student, teacher)

    def weight_at(self, name: str, progress: float) -> float:
        """The weight of a loss after this fraction of all steps."""
        end = self.fade.get(name)
        left = 1.0 if end is None else max(0.0, 1.0 - progress / end)
        return self.weights[name] * left

    def forward(
        self, student: Outputs, teacher: Outputs | None, batch: Batch, progress: float = 0.0
    ) -> ObjectiveOutput:
        """progress: fraction of all steps done, which fading weights follow."""
        if teacher is None and self.needs_teacher:
            raise ValueError(
                f"the losses {', '.join(self._teacher_terms)} need a teacher and there is none: "
                "give a teacher, or train with distill=labels_only"
            )
        terms: dict[str, Tensor] = {
            name: loss(student, teacher, batch) for name, loss in self.losses.items()
        }
        weighted = [self.weight_at(name, progress) * term for name, term in terms.items()]
        total = torch.stack(weighted).sum()
        return ObjectiveOutput(total, {name: term.detach() for name, term in terms.items()})


def _check_names(losses: Mapping[str, Loss], weights: Mapping[str, float]) -> None:
    without_weight = sorted(set(losses) - set(weights))
    without_loss = sorted(set(weights) - set(losses))
    if without_weight or without_loss:
        raise ValueError(
            "distill.losses and distill.weights must have the same names: "
            f"losses without a weight: {without_weight or 'none'}, "
            f"weights without a loss: {without_loss or 'none'}; add with "
            "+distill.weights.<name>=1 or +loss@distill.losses.<name>=<loss>, remove with ~"
        )


def _checked_fade(name: str, end: object, losses: Mapping[str, Loss]) -> float | None:
    if name not in losses:
        raise ValueError(
            f"distill.fade.{name} belongs to no loss: there are {', '.join(losses)}; remove it "
            f"with ~distill.fade.{name}"
        )
    if end is None:
        return None
    if isinstance(end, int | float) and end is not True and 0.0 < end <= 1.0:
        return float(end)
    raise ValueError(
        f"distill.fade.{name}={end} must be a fraction of all steps above 0 and at most 1, such as "
        "0.7; null keeps the weight as it is"
    )


def _checked_weight(name: str, weight: object) -> float:
    if isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0.0:
        return float(weight)
    raise ValueError(
        f"distill.weights.{name}={weight} must be a finite number of at least 0; 0 leaves the "
        "loss out"
    )
