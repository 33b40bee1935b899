"""The processes of one run on several devices: how they start, watch each other, and end.

Lightning would start them at `trainer.fit` by repeating this process's command, and end them by
SIGKILL, itself included, which leaves no word of why. So they are started here, where Lightning
lets others do it (it looks for LOCAL_RANK), from the run's resolved config.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, final

from pytorch_lightning.plugins.environments import (
    LightningEnvironment,  # pyright: ignore[reportPrivateImportUsage]
)

_FOLDER = "DQ_LIGHTNING_RANKS"  # of a run that starts its ranks: where each says how it fares
_GIVEN = ("LOCAL_RANK", "RANK", "JSM_NAMESPACE_RANK", "OMPI_COMM_WORLD_RANK")
_TERMINATED = 128 + signal.SIGTERM


def is_first_rank() -> bool:
    """Whether the environment names no rank above 0: such a process writes the run's files."""
    names = (*_GIVEN, "SLURM_PROCID", "NODE_RANK")
    return all(int(os.environ.get(name) or 0) == 0 for name in names)


def starts_ranks() -> bool:
    """Whether the other ranks of this machine are for this process to start.

    They are not where torchrun, srun (with several tasks) or mpirun starts each process.
    """
    tasks = int(os.environ.get("SLURM_NTASKS") or 1)
    return tasks == 1 and not any(name in os.environ for name in _GIVEN)


def cluster() -> list[LightningEnvironment]:
    """A plugin for the trainer, which leaves all to SLURM without it wherever it sees SLURM."""
    started = _FOLDER in os.environ
    return [LightningEnvironment()] if started or starts_ranks() else []


class RankError(RuntimeError):
    """Another process of this run failed."""


class RemoteTraceback(Exception):
    """Its text is the traceback of the other process."""


@final
class Ranks:
    """The other processes of this run on this machine, from `with` to its end.

    command: what each runs, with its number in LOCAL_RANK. folder: where each says how it fares;
    removed at the end. An error in one of them is raised here as RankError, or as SystemExit(143)
    where it was told to end; whatever is raised here ends them. abandon: called with such an error,
    in a thread of its own, `grace` seconds after it, where this process still waits in a collective
    that never ends; then the process ends.
    """

    def __init__(
        self,
        command: Sequence[str],
        num: int,
        folder: Path,
        abandon: Callable[[BaseException], None],
        grace: float = 5.0,
    ) -> None:
        self.command, self.num, self.folder = list(command), num, folder
        self.abandon, self.grace = abandon, grace
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._pipe: tuple[int, int, int] | None = None
        self._environment: dict[str, str | None] = {}

    def __enter__(self) -> "Ranks":
        port = os.environ.get("MASTER_PORT") or str(LightningEnvironment().main_port)
        own = {"LOCAL_RANK": "0", "MASTER_PORT": port, _FOLDER: str(self.folder)}
        own["MASTER_ADDR"] = os.environ.get("MASTER_ADDR", "127.0.0.1")
        self._environment = {name: os.environ.get(name) for name in own}
        for rank in range(1, self.num):
            self.processes[rank] = subprocess.Popen(
                self.command,
                env=os.environ | own | {"LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,  # its end tells them of ours, however that came
                start_new_session=True,  # a terminal's Ctrl-C is for this process alone
            )
        os.environ.update(own)
        self._listen()
        threading.Thread(target=self._watch, daemon=True, name="watch ranks").start()
        return self

    def _listen(self) -> None:
        """Hear of signals that Python cannot handle while this process waits in a collective."""
        if threading.current_thread() is threading.main_thread():  # no other may ask for it
            reader, writer = os.pipe()
            for end in (reader, writer):
                os.set_blocking(end, False)
            self._pipe = reader, writer, signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def _stop_listening(self) -> None:
        if self._pipe is not None:
            reader, writer, before = self._pipe
            signal.set_wakeup_fd(before)
            self._pipe = None
            os.close(reader)
            os.close(writer)

    def _heard(self) -> bytes:
        try:
            return os.read(self._pipe[0], 64) if self._pipe else b""
        except OSError:  # nothing to read, or closed meanwhile
            return b""

    def wait(self) -> None:
        """Wait until each is about to join the training; the waiting can be interrupted."""
        while not all((self.folder / f"{rank}.ready").exists() for rank in self.processes):
            if self._failed():
                raise RankError
            time.sleep(0.05)

    def _failed(self) -> list[int]:
        return [rank for rank, p in self.processes.items() if p.poll() not in (None, 0)]

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            terminated = signal.SIGTERM in self._heard()
            if terminated or self._failed():
                if not self._over.wait(self.grace):
                    failed = self._failed()
                    end = terminated or not failed
                    error = SystemExit(_TERMINATED) if end else self._error(failed[0])
                    self.abandon(error)
                    self._kill()
                    os._exit(_TERMINATED if isinstance(error, SystemExit) else 1)
                return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._let_end()
            elif isinstance(error, Exception) and (failed := self._first_to_fail()):
                raise self._error(failed) from _remote_traceback(self.folder, failed) or error
        finally:
            self._over.set()
            self._stop_listening()
            self._kill()
            shutil.rmtree(self.folder, ignore_errors=True)
            for name, value in self._environment.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def _let_end(self, seconds: float = 30.0) -> None:
        """They have nothing more to do; one that does not end is ended."""
        deadline = time.monotonic() + seconds
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))

    def _first_to_fail(self) -> int | None:
        """The rank that failed before this process did: it said so before its connections closed.

        One that was killed says nothing, so its end is waited for a moment.
        """
        for rank in self.processes:
            if (self.folder / f"{rank}.failed").exists():
                return rank
        time.sleep(0.5)
        return next(iter(self._failed()), None)

    def _error(self, rank: int) -> BaseException:
        told = _told(self.folder, rank)
        code = self.processes[rank].poll()
        if told.get("code", code) in (_TERMINATED, -signal.SIGTERM):
            return SystemExit(_TERMINATED)
        what = told.get("error") or f"it ended with exit code {code}"
        return RankError(f"Rank {rank} of the training failed: {what}")

    def _kill(self) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()


@contextlib.contextmanager
def as_rank() -> Generator[None, None, None]:
    """Around the work of a process that `Ranks` started: ends with it, and tells it of an error."""
    threading.Thread(target=_end_with_starter, daemon=True).start()
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        name = type(error).__name__
        told = {"error": f"{name}: {error}", "code": code, "traceback": traceback.format_exc()}
        _tell("failed", json.dumps(told))
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 1)  # the starter prints the error


def say_ready() -> None:
    """Tell the starter, where there is one, that this rank is about to join the training."""
    _tell("ready", "")


def _tell(what: str, text: str) -> None:
    folder = os.environ.get(_FOLDER)
    if folder is not None:
        file = Path(folder) / f"{os.environ['LOCAL_RANK']}.{what}"
        partial = file.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)


def _told(folder: Path, rank: int) -> dict[str, Any]:
    try:
        return json.loads((folder / f"{rank}.failed").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _remote_traceback(folder: Path, rank: int) -> RemoteTraceback | None:
    text = _told(folder, rank).get("traceback")
    return RemoteTraceback(f"\n{text}") if text else None


def _end_with_starter() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)
