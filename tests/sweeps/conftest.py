"""A tiny task to sweep over, and `python train.py -m` in a process of its own."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TinyTask = Any  # of the conftest.py above
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def task(tiny_task: TinyTask, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of a tiny task, and of a cache that sweeps share."""
    return [*tiny_task.words, f"paths.cache={tmp_path_factory.mktemp('cache')}", "logger=csv"]


@dataclass(frozen=True)
class Swept:
    """A sweep that ended: its exit code, what it printed, its cells and its report."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def cells(self) -> list[Path]:
        return sorted(path.parent for path in self.folder.glob("runs/cells/*/status.json"))

    @property
    def report(self) -> str:
        return (self.folder / "sweep" / "report.md").read_text()

    @property
    def header(self) -> list[str]:
        return (self.folder / "sweep" / "report.csv").read_text().splitlines()[0].split(",")

    @property
    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "sweep" / "report.csv").open() as lines:
            return list(csv.DictReader(lines))


@pytest.fixture(scope="session")
def start_sweep() -> Callable[..., "subprocess.Popen[str]"]:
    """Starts a sweep with its report in `folder`/sweep and its cells in `folder`/runs/cells."""

    def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
        where = [f"paths.runs={folder / 'runs'}", f"hydra.sweep.dir={folder / 'sweep'}"]
        return subprocess.Popen(
            [sys.executable, "train.py", "-m", *arguments, *where],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # a shell's background job ignores Ctrl-C, and so would all that it starts
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    return start


@pytest.fixture(scope="session")
def sweep(start_sweep: Callable[..., "subprocess.Popen[str]"]) -> Callable[..., Swept]:
    """Runs a sweep to its end."""

    def run(folder: Path, *arguments: str) -> Swept:
        process = start_sweep(folder, *arguments)
        out, err = process.communicate()
        return Swept(process.returncode, out, err, folder)

    return run
