"""AdamW with eps where the reference code of DQ-BART has it: before the bias correction."""

from collections.abc import Callable
from math import sqrt
from typing import Any

from torch import Tensor
from torch.optim import AdamW


class ReferenceAdamW(AdamW):
    """AdamW that divides by sqrt(v) + eps and corrects the bias of the quotient.

    theta -= lr sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps), as the AdamW of
    transformers 4 that DQ-BART's released code trains with (Li et al. 2022). torch divides by
    sqrt(v) / sqrt(1 - beta2^t) + eps (Loshchilov & Hutter 2019, arXiv 1711.05101, algorithm 2),
    which is the same at eps / sqrt(1 - beta2^t); so each step hands that eps to torch. At t = 1
    and beta2 = 0.999 it is 31.6 times the configured one, after 3000 steps 1.03 times.

    t counts the steps of a parameter group, so each of its weights needs a gradient in every step
    (or in none). Weight decay is torch's: it acts before the step, the reference's after it.
    """

    def __init__(self, params: Any, *, capturable: bool = False, **options: Any) -> None:
        if capturable:
            raise ValueError(
                "optimizer.capturable=true would freeze the eps of one step in the CUDA graph; "
                "write optimizer.capturable=false."
            )
        super().__init__(params, **options)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `eps` of the groups is the configured one before and after it."""
        groups = self.param_groups
        configured = [(group["eps"], self._num_steps(group) + 1) for group in groups]
        for group, (eps, t) in zip(groups, configured, strict=True):
            group["eps"] = eps / sqrt(1.0 - group["betas"][1] ** t)
        try:
            result = super().step(closure)
        finally:
            for group, (eps, _) in zip(groups, configured, strict=True):
                group["eps"] = eps
        for group, (_, t) in zip(groups, configured, strict=True):
            group["num_steps"] = t
        return result

    def _num_steps(self, group: dict[str, Any]) -> int:
        # The groups count on the host: the fused kernel's own counts lie on the device, where
        # reading one would wait for it. They are read once, for a state that AdamW has saved.
        if "num_steps" in group:
            return group["num_steps"]
        counts: list[Tensor] = [self.state[p]["step"] for p in group["params"] if p in self.state]
        return max((int(count) for count in counts), default=0)
