"""Dividing one machine between runs side by side: its devices, its cores, its ports."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Slot:
    """What one run at a time may use: its devices (none on CPU) and its number of threads."""

    devices: tuple[str, ...]
    threads: int

    def environment(self) -> dict[str, str]:
        """The variables that keep a process to this slot; MASTER_PORT is free now."""
        threads = str(self.threads)
        variables = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if self.devices:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices)
        return variables | {"MASTER_PORT": str(free_port())}


def divide(
    jobs: int | None, devices: tuple[str, ...], devices_per_job: int, share: int = 1
) -> list[Slot]:
    """One slot a run: `jobs` of them, or as many as the devices give (on CPU: one).

    devices: those of the machine, none for runs on CPU. devices_per_job: how many a run trains on,
    which on CPU is its number of processes. share: runs at a time on one set of devices. The cores
    are divided between the runs and their processes unless OMP_NUM_THREADS is set already.
    """
    counts = {"jobs": 1 if jobs is None else jobs, "hydra.launcher.share": share}
    for key, number in counts.items():
        if type(number) is not int or number < 1:
            raise ValueError(f"{key}={number} is no whole number from 1; write one, as {key}=2.")
    sets = [
        devices[first : first + devices_per_job]
        for first in range(0, len(devices) - devices_per_job + 1, devices_per_job)
    ] * share
    if devices and not sets:
        raise ValueError(
            f"trainer.devices={devices_per_job} is more than the {len(devices)} visible here; "
            f"write trainer.devices={len(devices)} or fewer."
        )
    if jobs is not None and devices and jobs > len(sets):
        raise ValueError(
            f"jobs={jobs} needs {jobs} sets of {devices_per_job} device(s), and there are "
            f"{len(sets)}; write jobs={len(sets)}, or hydra.launcher.share=2 to let two runs "
            "share each set."
        )
    chosen = sets[: jobs or len(sets)] or [()] * (jobs or 1)
    processes = len(chosen) * devices_per_job
    threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, num_cores() // processes))
    return [Slot(tuple(of_one), threads) for of_one in chosen]


def visible_devices(accelerator: str) -> tuple[str, ...]:
    """The GPUs that runs with this trainer.accelerator can take; none where they use the CPU."""
    if accelerator not in ("auto", "gpu", "cuda"):
        return ()
    import torch  # slow to import, and a sweep on CPU needs it nowhere else

    count = torch.cuda.device_count()  # asks the driver, and takes no memory of the devices
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return tuple(named[:count] or map(str, range(count)))


def num_devices(devices: Any, available: tuple[str, ...]) -> int:
    """How many devices a run with this trainer.devices trains on; on CPU, how many processes.

    1 for what `check_config` will refuse, in the run itself.
    """
    if devices in ("auto", -1):
        return max(1, len(available))
    is_list = isinstance(devices, Sequence) and not isinstance(devices, str)
    given: Any = len(devices) if is_list else devices
    return given if type(given) is int and given > 0 else 1


def num_cores() -> int:
    """Those that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_port() -> int:
    """A TCP port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
