"""The folders that conf/hydra/default.yaml gives to a sweep and to each of its cells."""

import hashlib
import re
import sys

from omegaconf import DictConfig, OmegaConf

_NOT_OF_THE_SWEEP = ("jobs=", "sweep.", "hydra.", "hydra/", "paths.", "logger")
_MAX_CHARACTERS = 60


def sweep_name(arguments: list[str]) -> str:
    """The words of a command as a folder's name; the same words in any order share their digits.

    >>> sweep_name(["-m", "quant.bits=2,4", "jobs=2"])
    'quant.bits-2-4-b69509'
    """
    words = [word for word in arguments if "=" in word or word.startswith(("~", "+"))]
    words = [word for word in words if not word.startswith(_NOT_OF_THE_SWEEP)]
    digits = hashlib.sha256("\n".join(sorted(words)).encode()).hexdigest()[:6]
    text = re.sub(r"[^\w.]+", "-", "_".join(words))[:_MAX_CHARACTERS].strip("-_") or "default"
    return f"{text}-{digits}"


def register() -> None:
    """Make ${sweep_name:} and ${cell_folder:} known to OmegaConf."""

    def name() -> str:
        return sweep_name(sys.argv[1:])

    def folder(*, _root_: DictConfig) -> str:
        from dq_lightning.sweeps.cell import cell_folder  # imports torch, which costs seconds

        return str(cell_folder(_root_))

    # cached, as Hydra's now is: the cells, which have other overrides, are given the cache
    OmegaConf.register_new_resolver("sweep_name", name, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("cell_folder", folder, replace=True)
