"""Hydra's launcher for one machine: every cell in a fresh process, finished ones skipped."""

import contextlib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, final

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

_MODULE = "hydra_plugins.dq_lightning"


@final
class ProcessLauncher(Launcher):
    """Runs the cells that are not finished yet; see conf/hydra/launcher/process.yaml for the keys.

    A child gets its resolved config as a file and starts neither Hydra nor another sweep, so that
    the ranks which Lightning starts there repeat that one cell (Lightning #11300).
    """

    def __init__(
        self,
        jobs: int | None,
        accelerator: str,
        devices: Any,
        share: int,
        on_error: str,
        rerun: bool,
    ) -> None:
        if on_error not in ("continue", "stop"):
            raise ValueError(f"sweep.on_error={on_error} is unknown; write continue or stop.")
        self.jobs, self.accelerator, self.devices, self.share = jobs, accelerator, devices, share
        self.stop_on_error, self.rerun = on_error == "stop", rerun

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.context, self.config = hydra_context, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the cells of these overrides; returns follow their order."""
        from dq_lightning.sweeps.grid import Grid  # imports torch, which costs seconds
        from dq_lightning.sweeps.slots import divide, num_devices, visible_devices

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        # a run that names its devices by number must see them all: they are not divided
        numbered = OmegaConf.is_list(self.devices)
        available = () if numbered else visible_devices(self.accelerator)
        each = num_devices(self.devices, available)
        slots = divide(self.jobs, available, each, self.share)
        grid = Grid(self.context, self.config, Path(str(self.config.hydra.sweep.dir)).resolve())
        grid.plan(job_overrides, initial_job_idx)
        grid.run(slots, self.rerun, self.stop_on_error)
        return grid.returns()


def register() -> None:
    """Make the launcher known to Hydra.

    Hydra takes launchers from the namespace package hydra_plugins alone, which a project of one
    package has no room for: the launcher is given that name here.
    """
    plugins = Plugins.instance()  # scans the installed plugins before the name is taken
    with contextlib.suppress(ImportError):
        importlib.import_module("hydra_plugins")
    sys.modules.setdefault("hydra_plugins", ModuleType("hydra_plugins"))
    sys.modules[_MODULE] = sys.modules[__name__]
    ProcessLauncher.__module__ = _MODULE
    plugins.register(ProcessLauncher)
