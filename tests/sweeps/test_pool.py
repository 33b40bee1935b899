"""Processes run side by side, tell how they ended, and never outlive the pool."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dq_lightning.sweeps.pool import Job, run_jobs
from dq_lightning.sweeps.slots import Slot

ONE, TWO = [Slot((), 1)], [Slot((), 1), Slot((), 2)]


def job(folder: Path, name: str, code: str) -> Job:
    return Job(name, [sys.executable, "-c", code], folder / name / "output.log")


def run(jobs: list[Job], slots: list[Slot], goes_on: Callable[[Job], bool] = lambda _: True) -> int:
    """The most that ran at a time."""
    most = 0

    def on_tick(running: object) -> None:
        nonlocal most
        most = max(most, len(running))  # type: ignore[arg-type]

    run_jobs(jobs, slots, goes_on, on_tick)
    return most


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def eventually(what: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.05)
    return what()


def test_each_job_has_its_exit_code_and_its_output(tmp_path: Path) -> None:
    jobs = [
        job(tmp_path, "good", "print('fine')"),
        job(tmp_path, "bad", "import sys; print('broken', file=sys.stderr); sys.exit(3)"),
        job(tmp_path, "killed", "import os; os.kill(os.getpid(), 9)"),
    ]
    ended: list[str] = []
    most = run(jobs, TWO, lambda one: not ended.append(one.name))
    assert [one.exit_code for one in jobs] == [0, 3, -9]
    assert sorted(ended) == ["bad", "good", "killed"]
    assert most <= 2
    assert jobs[0].log.read_text() == "fine\n"
    assert jobs[1].log.read_text() == "broken\n"


@pytest.mark.parametrize("slots", [ONE, TWO])
def test_no_more_run_at_a_time_than_there_are_slots(tmp_path: Path, slots: list[Slot]) -> None:
    code = "import time; time.sleep(0.5)"
    assert run([job(tmp_path, str(n), code) for n in range(3)], slots) == len(slots)


def test_a_slot_is_given_on(tmp_path: Path) -> None:
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MASTER_PORT'])"
    jobs = [job(tmp_path, str(n), code) for n in range(4)]
    run(jobs, [Slot((), 7)])
    threads, ports = zip(*(one.log.read_text().split() for one in jobs), strict=True)
    assert set(threads) == {"7"}
    assert all(port.isdigit() for port in ports)


def test_false_starts_no_further_job(tmp_path: Path) -> None:
    jobs = [job(tmp_path, str(n), "raise SystemExit(1)") for n in range(3)]
    run(jobs, ONE, lambda one: one.exit_code == 0)
    assert [one.exit_code for one in jobs] == [1, None, None]


def test_what_a_job_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    child = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid)"
    one = job(tmp_path, "parent", child)
    run([one], ONE)
    assert eventually(lambda: not alive(int(one.log.read_text())))


def test_an_error_ends_what_runs(tmp_path: Path) -> None:
    def broken(running: object) -> None:
        if (tmp_path / "up").exists():
            raise RuntimeError("disk full")

    code = f"import pathlib, time; pathlib.Path({str(tmp_path / 'up')!r}).touch(); time.sleep(60)"
    one = job(tmp_path, "sleeper", code)
    with pytest.raises(RuntimeError, match="disk full"):
        run_jobs([one], ONE, lambda _: True, broken)
    assert one.exit_code == -signal.SIGTERM


def test_sigterm_leaves_with_143_and_ends_what_runs(tmp_path: Path) -> None:
    one = job(tmp_path, "sleeper", "import time; time.sleep(60)")
    threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()
    with pytest.raises(SystemExit) as left:
        run([one], ONE)
    assert left.value.code == 143
    assert time.monotonic() - began < 10
    assert one.exit_code == -signal.SIGTERM


OWNER = """
import sys
from pathlib import Path
from dq_lightning.sweeps.pool import Job, run_jobs
from dq_lightning.sweeps.slots import Slot

folder = Path(sys.argv[1])
code = (
    "import os, sys, threading, time\\n"
    "from dq_lightning.sweeps import job\\n"
    "threading.Thread(target=job._end_with_parent, args=(0,), daemon=True).start()\\n"
    "print(os.getpid(), flush=True)\\n"
    "time.sleep(60)"
)
run_jobs([Job("a", [sys.executable, "-c", code], folder / "log")], [Slot((), 1)],
         lambda job: True, lambda running: None)
"""


def test_jobs_end_when_their_pool_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)])
    log = tmp_path / "log"
    assert eventually(lambda: log.exists() and log.read_text().strip().isdigit())
    pid = int(log.read_text())
    assert alive(pid)
    owner.kill()
    owner.wait()
    assert eventually(lambda: not alive(pid), 5.0)
