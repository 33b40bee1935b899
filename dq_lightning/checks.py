"""What a config must satisfy before anything is loaded; each failure is one sentence."""

import os
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dq_lightning.choices import chosen_save_dtype, writes_targets
from dq_lightning.data.pseudo_labels import TARGETS

_NUMBERS_FROM_0 = tuple(
    f"optimizer.{name}"
    for name in ("lr", "weight_decay", "scale_lr", "embedding_factor", "depth_exponent")
)
_COUNTS = (
    "validations",
    "samples",
    "data.batch_size",
    "data.eval_batch_size",
    "pseudo_label.batch_size",
    "pseudo_label.shard_size",
    "data.max_source_length",
    "data.max_target_length",
    "trainer.accumulate_grad_batches",
)
_COUNTS_OR_NULL = (
    "steps",
    "epochs",
    "validation_rows",
    "data.limit_train",
    "data.limit_validation",
    "data.limit_test",
    "student.encoder_layers",
    "student.decoder_layers",
    "data.generation.num_beams",
    "pseudo_label.batch_size",
    "pseudo_label.shard_size",
    "pseudo_label.generation.num_beams",
)


def check_config(cfg: DictConfig) -> None:
    """Raise a ValueError that names the first key whose value cannot work, and what to write."""
    if cfg.steps is None and cfg.epochs is None:
        raise ValueError("steps and epochs are both null; write steps=1200 or epochs=16.")
    for key in (*_COUNTS, *_COUNTS_OR_NULL):
        if key.startswith("pseudo_label.") and not cfg.pseudo_label:
            continue
        value = OmegaConf.select(cfg, key)
        if (value is not None or key in _COUNTS) and not _is_whole(value, at_least=1):
            raise ValueError(f"{key}={value} is no whole number from 1; write one, as {key}=8.")
    if not _is_whole(cfg.seed, at_least=0):
        raise ValueError(f"seed={cfg.seed} is no whole number from 0; write one, such as seed=28.")
    for key in _NUMBERS_FROM_0:
        value = OmegaConf.select(cfg, key, default=0.0)
        if value is None and key == "optimizer.scale_lr":
            continue  # as lr
        if isinstance(value, str | bool) or value is None or value < 0:
            raise ValueError(f"{key}={value} is no number from 0; write one, such as {key}=0.001.")
    chosen_save_dtype(cfg.student)
    if cfg.packed.positions_bits not in (8, 32):
        raise ValueError(
            f"packed.positions_bits={cfg.packed.positions_bits} is no width of stored positions; "
            "write packed.positions_bits=8, or 32 to keep them as they are."
        )
    decay = OmegaConf.select(cfg, "averaging.decay", default=0.0)
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < 1:
        raise ValueError(
            f"averaging.decay={decay} is no number from 0 to below 1; write one, such as "
            "averaging.decay=0.98, or averaging=none."
        )
    _check_groups(cfg)
    _check_trainer(cfg)
    if str(cfg.trainer.strategy).startswith("fsdp") and cfg.averaging:
        raise ValueError(
            "trainer.strategy=fsdp leaves no process the whole weights to average; write "
            "averaging=none."
        )


def check_lengths(cfg: DictConfig, model_config: Any) -> None:
    """Raise a ValueError when texts may get longer than the model has positions for.

    Models without a table of positions (T5) take any length.
    """
    positions = getattr(model_config, "max_position_embeddings", None)
    if positions is None:
        return
    keys = ("max_source_length", "max_target_length", "generation.max_length",
            "generation.max_new_tokens")  # fmt: skip
    for key in keys:
        length = OmegaConf.select(cfg.data, key)
        if length is not None and length > positions:
            raise ValueError(
                f"data.{key}={length} is more than the {positions} positions of the model "
                f"(teacher.path={cfg.teacher.path}); write data.{key}={positions} or less."
            )


def _is_whole(value: object, at_least: int) -> bool:
    return type(value) is int and value >= at_least


def _check_groups(cfg: DictConfig) -> None:
    if cfg.teacher.get("config") is not None:
        raise ValueError(
            "This teacher has no weights, only a shape (teacher.config) for the size command; "
            "write teacher=<hub name or folder>, such as teacher=facebook/bart-base."
        )
    from_scratch = "family" in cfg.student
    if (cfg.teacher.path is None) != from_scratch:
        raise ValueError(
            "teacher=none and student=scratch belong together (a model trained from labels alone); "
            "write teacher=none student=scratch quant=none distill=labels_only, or neither."
        )
    if writes_targets(cfg) and cfg.teacher.path is None:
        raise ValueError(
            "pseudo_label=teacher needs a teacher that writes the targets, and teacher=none has "
            "none; write pseudo_label=none."
        )
    if cfg.pseudo_label and cfg.pseudo_label.targets not in TARGETS:
        raise ValueError(
            f"pseudo_label.targets={cfg.pseudo_label.targets} is unknown; write replace or add."
        )


def _check_trainer(cfg: DictConfig) -> None:
    _check_devices(cfg.trainer)
    scaled = str(cfg.trainer.precision) in ("16-mixed", "16")
    if scaled and cfg.optimizer.get("fused") and cfg.trainer.gradient_clip_val:
        raise ValueError(
            f"trainer.precision={cfg.trainer.precision} cannot clip gradients for a fused "
            "optimizer; write optimizer.fused=false, or trainer.precision=bf16-mixed."
        )


def _check_devices(trainer: DictConfig) -> None:
    devices: Any = trainer.devices
    listed = OmegaConf.is_list(devices) and len(devices) > 0
    if not (listed or devices in ("auto", -1) or _is_whole(devices, at_least=1)):
        raise ValueError(
            f"trainer.devices={devices} is no number of devices; write one, such as "
            "trainer.devices=2, or auto for all there are."
        )
    if not _is_whole(trainer.num_nodes, at_least=1):
        raise ValueError(
            f"trainer.num_nodes={trainer.num_nodes} is no number of machines; write one, such as "
            "trainer.num_nodes=1."
        )
    known = "MASTER_ADDR" in os.environ or int(os.environ.get("SLURM_NTASKS") or 1) > 1
    if trainer.num_nodes > 1 and not known:
        raise ValueError(
            f"trainer.num_nodes={trainer.num_nodes}, and nothing says where the machines meet; set "
            "MASTER_ADDR, MASTER_PORT and NODE_RANK on each, or write srun or torchrun before."
        )
    if str(trainer.strategy).startswith("fsdp") and trainer.accelerator == "cpu":
        raise ValueError(
            "trainer.strategy=fsdp cannot work with trainer.accelerator=cpu: Lightning shards on "
            "GPUs alone; write trainer=ddp_cpu, or trainer.accelerator=gpu."
        )
