"""sweep.json: which cells a sweep has, where each one lies, and how the sweep ended."""

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, final

from filelock import FileLock

from dq_lightning.artifacts.artifact import Artifact

FILE = "sweep.json"


@dataclass(frozen=True)
class Cell:
    """A point of the grid: its identity, what a person calls it, its overrides, its folder."""

    id: str
    name: str
    overrides: tuple[str, ...]
    folder: Path


@final
class Manifest:
    """Typed access to the sweep.json of one sweep folder; jobs side by side may add cells."""

    def __init__(self, sweep_dir: Path) -> None:
        self.artifact = Artifact(sweep_dir)
        self.sweep_dir = sweep_dir

    def begin(self, command: str) -> None:
        """Start over with no cells: those of an earlier sweep in this folder are added again.

        Until the first one is, the file keeps what that sweep said, for a command that is refused.
        """
        content = {"name": self.sweep_dir.name, "created": _now(), "command": command}
        owner = {"status": "running", "pid": os.getpid(), "host": socket.gethostname()}
        with self._alone():
            before = self._read() if (self.sweep_dir / FILE).exists() else None
            earlier = {"before": before.get("before", before)} if before else {}
            self.artifact.write_json(FILE, content | owner | {"cells": []} | earlier)

    def add(self, cells: Iterable[Cell]) -> None:
        """Append the cells that are not there yet."""
        with self._alone():
            content = {key: value for key, value in self._read().items() if key != "before"}
            known = {entry["id"] for entry in content["cells"]}
            for cell in cells:
                if cell.id not in known:
                    known.add(cell.id)
                    content["cells"].append(self._entry(cell))
            self.artifact.write_json(FILE, content)

    def end(self, status: str) -> None:
        """Say how the sweep ended: finished, failed or interrupted.

        One that planned no cell leaves the word to the sweep before it.
        """
        with self._alone():
            content = self._read()
            ended = {**content, "status": status, "ended": _now()}
            self.artifact.write_json(FILE, content.get("before") or ended)

    def _entry(self, cell: Cell) -> dict[str, Any]:
        where = Path(os.path.relpath(cell.folder, self.sweep_dir)).as_posix()
        overrides = list(cell.overrides)
        return {"id": cell.id, "name": cell.name, "overrides": overrides, "run_dir": where}

    def _read(self) -> Mapping[str, Any]:
        try:
            return self.artifact.read_json(FILE)
        except FileNotFoundError:
            return {"name": self.sweep_dir.name, "created": _now(), "cells": []}

    def _alone(self) -> FileLock:
        self.sweep_dir.mkdir(parents=True, exist_ok=True)
        return FileLock(self.sweep_dir / ".sweep.lock")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
