"""Label cross-entropy: the task's own loss."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dq_lightning.distillation.loss import Batch, Loss, Outputs, to_compute_dtype
from dq_lightning.distillation.masking import IGNORE_INDEX, target_mask


class CrossEntropyLoss(Loss):
    """Cross-entropy with the labels: -mean over real tokens of sum_v q(v) log p_student(v).

    q is the label's one-hot vector, mixed with the uniform one at rate `label_smoothing`
    (Szegedy et al. 2016, section 7). At 0 it equals the loss transformers computes.
    """

    needs_teacher = False

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(
                f"label_smoothing={label_smoothing} of the cross-entropy must be at least 0 and "
                "below 1, for instance 0.1"
            )
        self.label_smoothing = label_smoothing

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Tensor, ""]:
        total = F.cross_entropy(
            to_compute_dtype(student.logits).flatten(0, 1),
            batch["labels"].flatten(),
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.label_smoothing,
            # Not "mean": that is NaN for a batch without any real token.
            reduction="sum",
        )
        return total / target_mask(batch).sum().clamp(min=1)
