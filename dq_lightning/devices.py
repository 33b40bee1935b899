"""The devices of a run: how many train together, and the processes that they need."""

import contextlib
import os
import shutil
import sys
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from dq_lightning.artifacts.artifact import Artifact, failure
from dq_lightning.choices import plain
from dq_lightning.training.loggers import finish_wandb
from dq_lightning.training.ranks import Ranks, starts_ranks


def num_devices(trainer: DictConfig) -> int:
    """How many devices of one machine train together; 1 for what `check_config` will refuse."""
    devices = plain(trainer)["devices"]
    if devices not in ("auto", -1):
        given = len(devices) if isinstance(devices, list) else devices
        return given if isinstance(given, int) else 1
    on_cpu = trainer.accelerator == "cpu" or not torch.accelerator.is_available()
    return 1 if on_cpu else torch.accelerator.device_count()


def num_processes(trainer: DictConfig) -> int:
    """How many processes train together, one a device."""
    nodes = trainer.num_nodes
    return num_devices(trainer) * (nodes if isinstance(nodes, int) else 1)


def trains_on_several(cfg: DictConfig) -> bool:
    """Whether other processes train along."""
    return num_processes(cfg.trainer) > 1


def other_ranks(
    cfg: DictConfig, artifact: Artifact, resume: Path | None
) -> contextlib.AbstractContextManager[Ranks | None]:
    """The processes that this one starts to train along: none on one device, or where others do."""
    if not (trains_on_several(cfg) and starts_ranks()):
        return contextlib.nullcontext()
    folder = artifact.run_dir / f"ranks-{os.environ.get('NODE_RANK', '0')}"
    shutil.rmtree(folder, ignore_errors=True)  # of a start that was killed
    theirs = OmegaConf.create(plain(cfg) | {"ckpt": resume and str(resume)})
    file = Artifact(folder).write_text("config.yaml", OmegaConf.to_yaml(theirs))

    def abandon(error: BaseException) -> None:
        print(error, file=sys.stderr, flush=True)
        artifact.write_json("status.json", artifact.read_json("status.json") | failure(error))
        finish_wandb(error)

    command = [sys.executable, "-m", "dq_lightning.run", str(file)]
    return Ranks(command, num_devices(cfg.trainer), folder, abandon)
