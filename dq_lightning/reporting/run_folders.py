"""Where the runs of a sweep lie and what their files say; nothing here raises on a broken file."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Content = dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, its path as the report shows it, and its entry in the sweep's manifest."""

    path: Path
    shown: str
    entry: Content = field(default_factory=dict[str, Any])


def run_folders(root: Path) -> Iterator[RunFolder]:
    """The cells of ``sweep.json``; without one, every folder below with a ``status.json``."""
    cells = read_json(root / "sweep.json")[0].get("cells")
    if isinstance(cells, list):
        for cell in cells:
            if isinstance(cell, dict) and isinstance(cell.get("run_dir"), str):
                path = Path(os.path.normpath(root / cell["run_dir"]))
                yield RunFolder(path, cell["run_dir"], cell)
        return
    for folder, subfolders, files in os.walk(root):
        if "status.json" in files:
            subfolders.clear()  # checkpoints, logs and the student hold no other run
            yield RunFolder(Path(folder), Path(folder).relative_to(root).as_posix())
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]


def run_state(folder: RunFolder) -> tuple[Content, str, str | None]:
    """Content of ``status.json``, what the run's state is now, and its error.

    A cell of the manifest without the file is queued; a run whose process on this machine is gone
    is interrupted.
    """
    status, error = read_json(folder.path / "status.json")
    if folder.entry and not (folder.path / "status.json").exists():
        return {}, "queued", None
    state = status.get("status", "unreadable")
    if state == "running" and is_gone(status):
        return status, "interrupted", "its process is gone; the same command goes on with it"
    return status, state, status.get("error") or error


def is_gone(status: Mapping[str, Any]) -> bool:
    """Whether the process of a run, or of a sweep, lived on this machine and lives no more."""
    pid = status.get("pid")
    # On Windows os.kill would end the process that it should only ask for.
    if not isinstance(pid, int) or status.get("host") != socket.gethostname() or os.name == "nt":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's
        return False
    return False


def overrides(folder: RunFolder) -> list[str]:
    """What the run was told on the command line: from the manifest, or as Hydra keeps it."""
    told: Any = folder.entry.get("overrides")
    if not folder.entry:
        try:
            text = (folder.path / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")
            told = yaml.safe_load(text)
        except (OSError, ValueError, yaml.YAMLError):
            told = None
    return [str(override) for override in told] if isinstance(told, list) else []


def read_json(path: Path) -> tuple[Content, str | None]:
    """A JSON object, or an empty one and the reason in one line."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, f"{path.name} is missing"
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not JSON, or not UTF-8
        return {}, f"{path.name}: {error}"
    if not isinstance(content, dict):
        return {}, f"{path.name} holds no JSON object"
    return content, None
