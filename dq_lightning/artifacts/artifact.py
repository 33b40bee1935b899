"""The run directory: every file appears complete or not at all, and says how the run ended."""

import contextlib
import importlib.metadata
import json
import logging
import os
import platform
import shlex
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Generator, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, final

from dq_lightning.artifacts.atomic import replace_directory, strict_json, write_file

log = logging.getLogger(__name__)

PACKAGES = (
    "torch",
    "transformers",
    "pytorch-lightning",
    "hydra-core",
    "omegaconf",
    "datasets",
    "tokenizers",
    "safetensors",
    "torchmetrics",
    "rouge-score",
    "sacrebleu",
    "wandb",
    "numpy",
)


@final
class Artifact:
    """Typed access to one run directory; needs no torch, so reports can be built anywhere.

    Layout: ``config.yaml`` (resolved), ``environment.json``, ``quantization.json``,
    ``metrics.json``, ``predictions.jsonl``, ``student/``, ``status.json``, ``checkpoints/``,
    ``logs/``. Writers go through a temporary sibling, fsync and rename: after a crash or on a full
    disk the old content stays, or nothing. One process writes a run directory at a time.
    """

    def __init__(self, run_dir: Path | str) -> None:
        self.run_dir = Path(run_dir)

    @property
    def checkpoints(self) -> Path:
        return self.run_dir / "checkpoints"

    @property
    def logs(self) -> Path:
        return self.run_dir / "logs"

    @property
    def student(self) -> Path:
        return self.run_dir / "student"

    def write_text(self, name: str, text: str) -> Path:
        return write_file(self.run_dir / name, [text])

    def write_json(self, name: str, content: Any) -> Path:
        """Strict JSON: NaN and the infinities become null."""
        return self.write_text(name, strict_json(content, indent=2) + "\n")

    def write_jsonl(self, name: str, rows: Iterable[Any]) -> Path:
        """One JSON value a line; ``rows`` may be lazy, and nothing appears if it raises."""
        return write_file(self.run_dir / name, (strict_json(row) + "\n" for row in rows))

    def read_text(self, name: str) -> str:
        return (self.run_dir / name).read_text(encoding="utf-8")

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_text(name))

    def read_object(self, name: str) -> dict[str, Any]:
        """A JSON object; an empty one where there is none, or none that can be read."""
        try:
            content = self.read_json(name)
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def read_jsonl(self, name: str) -> list[Any]:
        return [json.loads(line) for line in self.read_text(name).split("\n") if line.strip()]

    @contextlib.contextmanager
    def directory(self, name: str) -> Generator[Path, None, None]:
        """Yields an empty temporary folder that becomes ``name`` when the block ends well."""
        with replace_directory(self.run_dir / name) as temporary:
            yield temporary

    @contextlib.contextmanager
    def running(self, cell: Mapping[str, Any] | None = None) -> Generator[None, None, None]:
        """Keeps ``status.json`` true: running in the block, then finished, failed if it
        raised, or interrupted by Ctrl-C or SIGTERM.

        Every exception, Ctrl-C included, is recorded with its traceback and raised again; it then
        carries the folder as ``error.run_dir``. ``cell`` names the run in a sweep's report.
        """
        began = time.monotonic()
        status = _beginning(cell)
        self.write_json("status.json", status)
        try:
            yield
            self.write_json("status.json", status | _ending(began) | {"status": "finished"})
        except BaseException as error:
            self._record(error, status, began)
            raise

    @contextlib.contextmanager
    def checking(self, cell: Mapping[str, Any] | None = None) -> Generator[None, None, None]:
        """For what comes before a run touches its folder: an error is recorded as in `running`,
        but a finished run that lies there stays finished.
        """
        began = time.monotonic()
        try:
            yield
        except BaseException as error:
            finished = self.read_object("status.json").get("status") == "finished"
            self._record(error, None if finished else _beginning(cell), began)
            raise

    def _record(self, error: BaseException, status: dict[str, Any] | None, began: float) -> None:
        """Let the error carry the folder, and status.json say how the run ended; None: nothing."""
        with contextlib.suppress(AttributeError):
            error.run_dir = self.run_dir  # type: ignore[attr-defined]
        if status is None:
            return
        try:
            self.write_json("status.json", status | _ending(began) | failure(error))
        except OSError as unwritten:  # the run's own error matters more than a full disk
            log.warning("Could not write status.json in %s: %s", self.run_dir, unwritten)


def failure(error: BaseException) -> dict[str, str]:
    """The status of a run that raised: its one line ``Type: message`` and its traceback.

    Ctrl-C and SIGTERM interrupt a run, anything else fails it.
    """
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    # Ctrl-C and SIGTERM become plain exits with a code; the report should say what happened.
    signals = (KeyboardInterrupt, SystemExit)
    if type(error) is SystemExit and isinstance(error.__context__, signals):
        error = error.__context__
    message = " ".join(str(error).split())
    name = type(error).__name__
    return {
        "status": "interrupted" if _is_signal(error) else "failed",
        "error": f"{name}: {message}" if message else name,
        "traceback": trace,
    }


def _is_signal(error: BaseException) -> bool:
    if isinstance(error, SystemExit):
        # above 128 a signal's; -1: submitit's, once the job waits in the queue again
        return isinstance(error.code, int) and (error.code > 128 or error.code == -1)
    return isinstance(error, KeyboardInterrupt)


def _program() -> list[str]:
    """What stands behind `python` on the command line: a script, or -m and a module."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        return [Path(sys.argv[0]).name]
    return ["-m", spec.name.removesuffix(".__main__")]


def environment(seed: int | None = None, device: str | None = None) -> dict[str, Any]:
    """What a figure depends on besides its config: versions, commit, machine, seed, command."""
    sha, dirty = _commit(Path(__file__).resolve())
    return {
        "python": platform.python_version(),
        "packages": versions(*PACKAGES),
        "git_sha": sha,
        "git_dirty": dirty,
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "seed": seed,
        "device": device,
        "command": shlex.join(["python", *_program(), *sys.argv[1:]]),
        "created": _now(),
    }


def versions(*packages: str) -> dict[str, str | None]:
    """The installed version of each package; None where it is not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def _commit(source: Path) -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the repository that tracks ``source``, or None where none does."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source.parent), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        # A virtual environment may lie inside someone else's repository: that one does not count.
        git("ls-files", "--error-unmatch", source.name)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "-uno"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _beginning(cell: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "status": "running",
        "started": _now(),
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "cell": dict(cell or {}),
    }


def _ending(began: float) -> dict[str, Any]:
    return {"ended": _now(), "seconds": round(time.monotonic() - began, 3)}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
