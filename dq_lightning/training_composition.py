"""Config -> trainer, LightningModule and loggers, once the parts are there."""

from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.choices import build, cell_columns, cell_id, plain
from dq_lightning.composition import Parts
from dq_lightning.devices import num_processes
from dq_lightning.training.checkpoint_files import WholeFiles
from dq_lightning.training.checkpoints import BestAndLast
from dq_lightning.training.module import DistillationModule
from dq_lightning.training.parameter_groups import depth_scaled, has_learned_scales
from dq_lightning.training.progress import ValidationLines
from dq_lightning.training.progress_file import ProgressFile
from dq_lightning.training.ranks import cluster
from dq_lightning.training.schedule import validation_interval
from dq_lightning.training.termination import ExitsAtOnce


def build_training(
    cfg: DictConfig,
    parts: Parts,
    checkpoints: Path,
    teacher: dict[str, float],
    logs: bool = True,
) -> tuple[pl.Trainer, DistillationModule]:
    """The trainer and the module; `teacher`: its validation scores, shown beside the student's.

    logs: False for a process that leaves the logging to another.
    """
    accumulate = cfg.trainer.accumulate_grad_batches
    batches = accumulate * num_processes(cfg.trainer)  # of one step
    steps = cfg.steps or cfg.epochs * max(1, len(parts.data.train_dataloader()) // batches)
    monitor = f"validation/{parts.metric.primary}"
    schedule = parts.quant_schedule
    after = schedule.starts(steps)[-1] if schedule else 0
    best = BestAndLast(checkpoints, monitor, parts.metric.higher_is_better, after=after)
    callbacks: list[Callback] = [build(node) for node in cfg.callbacks.values()]
    _check_scales(cfg, parts)
    callbacks += [build(cfg.averaging)] if cfg.averaging else []
    callbacks += [schedule] if schedule else []
    callbacks += [ProgressFile(partial(Artifact(checkpoints.parent).write_json, "progress.json"))]
    trainer = build(
        cfg.trainer,
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=validation_interval(steps, cfg.validations) * accumulate,
        check_val_every_n_epoch=None,
        callbacks=[*callbacks, ExitsAtOnce(), ValidationLines(teacher), best],
        logger=build_loggers(cfg) if logs else False,
        plugins=[WholeFiles(), *cluster()],
        default_root_dir=str(checkpoints.parent),
    )
    optimizer, rates = split_rates(plain(cfg.optimizer), parts)
    module = DistillationModule(
        parts.student,
        parts.teacher,
        parts.objective,
        parts.metric,
        parts.generator,
        build(optimizer),
        build(cfg.scheduler),
        **rates,
    )
    return trainer, module


def _check_scales(cfg: DictConfig, parts: Parts) -> None:
    """Raise a ValueError for learned scales where they cannot be trained as configured."""
    schedule = parts.quant_schedule
    if cfg.averaging and schedule and schedule.starts_scales_late:
        raise ValueError(
            "quant_schedule=delayed starts the learned scales of activations late, and an average "
            "of weights would hold what they were before; write averaging=none."
        )
    if schedule and schedule.rests_parameters and cfg.trainer.strategy == "ddp":
        raise ValueError(
            "quant_schedule=delayed leaves learned scales without a gradient at first, which "
            "trainer.strategy=ddp does not allow; write "
            "trainer.strategy=ddp_find_unused_parameters_true."
        )
    if str(cfg.trainer.strategy).startswith("fsdp") and has_learned_scales(parts.student):
        raise ValueError(
            "trainer.strategy=fsdp spreads weights over the devices and has no place for scales "
            "that quantizers learn; write trainer=ddp, or quant=ternary, which learns none."
        )


def split_rates(
    optimizer: dict[str, Any], parts: Parts
) -> tuple[dict[str, Any], dict[str, float | None]]:
    """The optimizer's own arguments, lr for the student's depth, and the rates of its groups."""
    scale_lr, factor = optimizer.pop("scale_lr", None), optimizer.pop("embedding_factor", 1.0)
    exponent = optimizer.pop("depth_exponent", 0.0)
    embedding_lr = None if factor == 1.0 else optimizer["lr"] * factor
    if parts.teacher:
        models = parts.teacher.model, parts.student
        teacher, student = (sum(parts.family.num_layers(model.config)) for model in models)
        optimizer["lr"] = depth_scaled(optimizer["lr"], teacher, student, exponent)
    return optimizer, {"scale_lr": scale_lr, "embedding_lr": embedding_lr}


def build_loggers(cfg: DictConfig) -> list[Logger]:
    """The configured loggers, told the whole config; W&B runs of one sweep share a group."""
    cell = cell_id(cfg) if cfg.sweep.name else None
    wandb = partial(build, name=cell_columns(cfg)["name"], group=cfg.sweep.name)
    wandb = partial(wandb, cell=cell, resumed=cfg.ckpt is not None)
    loggers: list[Logger] = [
        (wandb if name == "wandb" else build)(node) for name, node in cfg.logger.items()
    ]
    for logger in loggers:
        logger.log_hyperparams(plain(cfg))
    return loggers
