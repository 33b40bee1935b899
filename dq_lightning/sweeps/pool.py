"""Runs commands side by side, each in a process group of its own that never outlives this one."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from dq_lightning.sweeps.slots import Slot

_POLL_SECONDS = 0.2
_SECONDS_TO_LEAVE = 10.0


@dataclass
class Job:
    """A command, the file for what it prints, and what became of it (None: not ended)."""

    name: str
    command: list[str]
    log: Path
    exit_code: int | None = None
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def running(self) -> bool:
        return self.process is not None and self.exit_code is None


def run_jobs(
    jobs: Sequence[Job],
    slots: Sequence[Slot],
    on_end: Callable[[Job], bool],
    on_tick: Callable[[Sequence[Job]], None],
) -> None:
    """Run every job, as many at a time as there are slots, in order.

    on_end(job) is called as each one ends; False starts no further one. on_tick(running jobs) is
    called some times a second. Before Ctrl-C, SIGTERM or an error passes, all processes are ended
    within seconds.
    """
    waiting, free, taken = list(jobs), list(slots), dict[int, Slot]()
    with _sigterm_raises():
        try:
            while waiting or taken:
                while waiting and free:
                    job, slot = waiting.pop(0), free.pop(0)
                    taken[id(job)] = slot
                    _start(job, slot)
                for job in jobs:
                    if job.running and _ended(job):
                        free.append(taken.pop(id(job)))
                        if not on_end(job):
                            waiting.clear()
                on_tick([job for job in jobs if job.running])
                time.sleep(_POLL_SECONDS)
        finally:
            _end([job for job in jobs if job.running])


def _start(job: Job, slot: Slot) -> None:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        job.process = subprocess.Popen(
            job.command,
            # a pipe that nobody writes to: its end tells the process that this one is gone
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | slot.environment(),
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the group
        )


def _ended(job: Job) -> bool:
    assert job.process is not None
    job.exit_code = job.process.poll()
    if job.exit_code is None:
        return False
    _signal(job, signal.SIGKILL)  # whatever the process left in its group
    assert job.process.stdin is not None
    job.process.stdin.close()
    return True


def _end(jobs: Sequence[Job]) -> None:
    for job in jobs:
        _signal(job, signal.SIGTERM)
    deadline = time.monotonic() + _SECONDS_TO_LEAVE
    for job in jobs:
        assert job.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.process.wait(max(0.0, deadline - time.monotonic()))
        _signal(job, signal.SIGKILL)
        job.exit_code = job.process.wait()


def _signal(job: Job, number: int) -> None:
    assert job.process is not None
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(job.process.pid, number)


@contextlib.contextmanager
def _sigterm_raises() -> Generator[None, None, None]:
    """SIGTERM leaves through ``finally`` clauses, as Ctrl-C does."""

    def leave(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
