"""Devices, cores and ports are divided so that runs side by side never meet."""

import socket
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dq_lightning.sweeps import launcher, slots
from dq_lightning.sweeps.grid import Grid
from dq_lightning.sweeps.slots import Slot, divide, free_port, num_devices

EIGHT = tuple(map(str, range(8)))


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(slots, "num_cores", lambda: 8)


@pytest.mark.parametrize(
    ("jobs", "devices", "each", "share", "expected"),
    [
        (None, (), 1, 1, [Slot((), 8)]),
        (2, (), 1, 1, [Slot((), 4)] * 2),
        (3, (), 1, 1, [Slot((), 2)] * 3),
        (2, (), 2, 1, [Slot((), 2)] * 2),  # two processes a run
        (16, (), 1, 1, [Slot((), 1)] * 16),
        (None, ("0", "1"), 1, 1, [Slot(("0",), 4), Slot(("1",), 4)]),
        (1, ("0", "1"), 1, 1, [Slot(("0",), 8)]),
        (None, EIGHT[:5], 2, 1, [Slot(("0", "1"), 2), Slot(("2", "3"), 2)]),
        (2, ("0",), 1, 2, [Slot(("0",), 4)] * 2),
        (None, ("GPU-a", "GPU-b"), 2, 1, [Slot(("GPU-a", "GPU-b"), 4)]),
    ],
)
def test_a_machine_is_divided(
    jobs: int | None, devices: tuple[str, ...], each: int, share: int, expected: list[Slot]
) -> None:
    assert divide(jobs, devices, each, share) == expected


def test_no_device_belongs_to_two_runs() -> None:
    for each in range(1, 9):
        taken = [device for slot in divide(None, EIGHT, each) for device in slot.devices]
        assert len(taken) == len(set(taken)) == 8 // each * each


@pytest.mark.parametrize(
    ("jobs", "devices", "each", "says"),
    [
        (0, (), 1, "jobs=0 is no whole number from 1; write one, as jobs=2."),
        ("two", (), 1, "jobs=two is no whole number from 1; write one, as jobs=2."),
        (1.5, (), 1, "jobs=1.5 is no whole number from 1; write one, as jobs=2."),
        (3, ("0", "1"), 1, "write jobs=2, or hydra.launcher.share=2"),
        (None, ("0", "1"), 4, "write trainer.devices=2 or fewer."),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(
    jobs: Any, devices: tuple[str, ...], each: int, says: str
) -> None:
    with pytest.raises(ValueError, match=r".*") as caught:
        divide(jobs, devices, each)
    assert says in str(caught.value)


def test_no_run_at_all_on_a_device_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^hydra\.launcher\.share=0 is no whole number from 1"):
        divide(None, ("0",), 1, share=0)


def test_devices_named_by_number_are_not_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that sees device 3 alone has no device of the number 3."""
    given: list[list[Slot]] = []
    monkeypatch.setattr(slots, "visible_devices", lambda accelerator: EIGHT)
    monkeypatch.setattr(Grid, "plan", lambda *arguments: None)
    monkeypatch.setattr(Grid, "run", lambda self, slots, *more: given.append(slots))
    monkeypatch.setattr(launcher, "configure_log", lambda *arguments: None)
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}, "verbose": False}})
    config.hydra.hydra_logging = None
    for devices in (2, OmegaConf.create([0, 3])):
        process = launcher.ProcessLauncher(None, "gpu", devices, 1, "continue", False)
        process.setup(hydra_context=Any, task_function=Any, config=config)  # type: ignore[arg-type]
        process.launch([], 0)
    assert [slot.devices for slot in given[0]] == [("0", "1"), ("2", "3"), ("4", "5"), ("6", "7")]
    assert given[1] == [Slot((), 4)]


def test_a_users_number_of_threads_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert divide(2, (), 1) == [Slot((), 3)] * 2


@pytest.mark.parametrize(
    ("devices", "available", "expected"),
    [
        ("auto", EIGHT, 8),
        ("auto", (), 1),
        (-1, EIGHT, 8),
        (2, EIGHT, 2),
        ([0, 3], EIGHT, 2),
        (OmegaConf.create([0, 3]), EIGHT, 2),
        *((refused, EIGHT, 1) for refused in (0, None, "two", 1.5, True, [])),
    ],
)
def test_the_devices_of_a_run_are_counted_as_the_trainer_does(
    devices: object, available: tuple[str, ...], expected: int
) -> None:
    assert num_devices(devices, available) == expected


def test_the_environment_keeps_a_process_to_its_slot() -> None:
    variables = Slot(("4", "5"), 2).environment()
    assert variables.pop("MASTER_PORT").isdigit()
    assert variables == {
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "4,5",
    }
    assert "CUDA_VISIBLE_DEVICES" not in Slot((), 2).environment()


def test_a_free_port_is_one_to_bind() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
