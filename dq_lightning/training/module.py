"""The LightningModule: one distillation step in four statements, and generative validation."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer
from transformers import PreTrainedModel

from dq_lightning.distillation.objective import Objective
from dq_lightning.evaluation.generation import TextGenerator
from dq_lightning.evaluation.metric import Metric
from dq_lightning.models.recording import record
from dq_lightning.models.teacher import Teacher
from dq_lightning.training.parameter_groups import learning_rates, parameter_groups

Batch = dict[str, Tensor]


class DistillationModule(pl.LightningModule):
    """Trains `student` against `teacher` (or the labels alone, without one).

    make_optimizer: parameter groups -> optimizer. make_schedule: (optimizer, number of optimizer
    steps) -> learning-rate schedule, stepped after every optimizer step. scale_lr,
    embedding_lr: learning rates of the quantizers' learned scales and of the vocabulary matrix;
    None: that of the other weights. Trained and saved in checkpoints are the student and the
    objective's own parameters, never the teacher.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: Teacher | None,
        objective: Objective,
        metric: Metric,
        generator: TextGenerator,
        make_optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        make_schedule: Callable[[Optimizer, int], Any],
        scale_lr: float | None = None,
        embedding_lr: float | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.objective = objective
        self.metric = metric
        self.generator = generator
        self.make_optimizer = make_optimizer
        self.make_schedule = make_schedule
        self.scale_lr = scale_lr
        self.embedding_lr = embedding_lr
        self.predictions: dict[int, str] = {}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        inputs = self._inputs(batch)
        requires = self.objective.requires
        wanted = self.teacher if self.objective.needs_teacher else None
        teacher = wanted(inputs, requires) if wanted else None
        student = record(self.student, inputs, requires)
        progress = self.trainer.global_step / self.trainer.max_steps
        result = self.objective(student, teacher, {**batch, **inputs}, progress)
        parts = {f"train/{name}": value for name, value in result.parts.items()}
        self.log_dict({"train/loss": result.total.detach(), **parts}, prog_bar=True)
        self.log_dict(learning_rates(self.trainer.optimizers[0].param_groups))
        return result.total

    def _inputs(self, batch: Batch) -> Batch:
        shift = self.student.prepare_decoder_input_ids_from_labels
        return {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["attention_mask"],
            "decoder_input_ids": shift(batch["labels"]),  # pyright: ignore[reportCallIssue]
        }

    def on_fit_start(self) -> None:
        if self.teacher:
            # no submodule, so the trainer does not move it
            self.teacher.model.to(self.device)  # pyright: ignore[reportArgumentType]

    def on_validation_epoch_start(self) -> None:
        self.predictions = {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        texts = self.generator(self.student, batch)
        self.predictions.update(zip(batch["index"].tolist(), texts, strict=True))

    def on_validation_epoch_end(self) -> None:
        references = self.trainer.datamodule.references("validation")  # pyright: ignore
        texts = self._texts_of_all_ranks()
        scores = self.metric.compute(
            [texts[index] for index in sorted(texts)],
            [references[index] for index in sorted(texts)],
        )
        self.log_dict({f"validation/{name}": value for name, value in scores.items()})

    def _texts_of_all_ranks(self) -> dict[int, str]:
        """By row. Each rank generated for its share, and each scores all of them."""
        if self.trainer.world_size == 1:
            return self.predictions
        shares: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(shares, self.predictions)
        return {row: text for share in shares for row, text in share.items()}

    def setup(self, stage: str) -> None:
        # before FSDP flattens the weights, whose shapes say which group is theirs
        ends = self.student.get_input_embeddings(), self.student.get_output_embeddings()
        embeddings: list[Any] = [end.weight for end in ends if end is not None]
        self.groups = parameter_groups(self, self.scale_lr, embeddings, self.embedding_lr)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.groups)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = {"scheduler": self.make_schedule(optimizer, steps), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # The trainer refuses to clip for fused optimizers under every mixed precision, because
        # they unscale gradients themselves; in bfloat16 nothing is scaled.
        sharded = self.trainer.strategy.model
        if isinstance(sharded, FullyShardedDataParallel):  # each rank holds a part of each gradient
            sharded.clip_grad_norm_(gradient_clip_val or float("inf"))
        elif self.trainer.precision == "bf16-mixed" and gradient_clip_algorithm in (None, "norm"):
            nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val or float("inf"))
        else:
            super().configure_gradient_clipping(
                optimizer, gradient_clip_val, gradient_clip_algorithm
            )

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step()


def default_device() -> torch.device:
    """Where a model outside the trainer runs: the accelerator if there is one."""
    return torch.accelerator.current_accelerator() or torch.device("cpu")
