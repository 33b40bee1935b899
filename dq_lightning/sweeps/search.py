"""hydra/sweeper=optuna: its study lies on disk, and it minimizes what is better small."""

import importlib
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf


def register() -> None:
    """Give the plugin's config, where it is installed, a study beside the sweep's report.

    The same command adds trials to the study. A file conf/hydra/sweeper/optuna.yaml could not: it
    would stand in the place of the plugin's schema.
    """
    try:
        config = importlib.import_module("hydra_plugins.hydra_optuna_sweeper.config")
    except ImportError:
        return
    node = config.OptunaSweeperConf(
        storage="sqlite:///${hydra.sweep.dir}/study.db", study_name="${sweep_name:}"
    )
    ConfigStore.instance().store(
        group="hydra/sweeper", name="optuna", node=node, provider="dq_lightning"
    )


def check_direction(config: DictConfig) -> None:
    """Refuse a search that would look for the worst student."""
    direction = OmegaConf.select(config, "hydra.sweeper.direction")
    if direction is None:
        return
    from dq_lightning.choices import build  # imports torch, which costs seconds

    metric: Any = build(config.metric)
    wanted = "maximize" if metric.higher_is_better else "minimize"
    given = str(getattr(direction, "name", direction))
    if given != wanted:
        raise ValueError(
            f"hydra.sweeper.direction={given} would look for the worst {metric.primary}; "
            f"write hydra.sweeper.direction={wanted}."
        )
