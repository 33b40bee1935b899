"""What a latency benchmark measured, on disk after every cell: a killed one goes on."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dq_lightning.artifacts.artifact import environment, versions
from dq_lightning.artifacts.atomic import strict_json, write_file
from dq_lightning.benchmarks.contender import Contender
from dq_lightning.benchmarks.latency import HEADLINE, Cell, cell_record, is_headline

_DECIDES = ("git_sha", "packages", "processor")
"""Parts of the environment that times depend on: one record has one of each."""


class LatencyRecord:
    """A JSON file, or only memory where `file` is None; every write is atomic.

    settings: what all cells share. Raises ValueError for a file that holds other settings, or that
    another commit, other packages or another processor measured.
    """

    def __init__(self, file: Path | None, settings: Mapping[str, Any]) -> None:
        self.file = file
        self.content: dict[str, Any] = {
            "settings": json.loads(strict_json(settings)),  # as a file gives them back
            "environment": {**environment(settings.get("seed")), **machine()},
            "contenders": {},
            "cells": [],
        }
        if file is not None and file.exists():
            self._take_over(file)

    def has(self, cell: Cell) -> bool:
        """Whether a cell is measured."""
        return any(asdict(cell).items() <= known.items() for known in self.content["cells"])

    def describe(self, name: str, threads: int, contender: Contender) -> None:
        """Keep what is known of a contender: description, bytes, and load time by threads."""
        facts = {
            "description": contender.description,
            "resident_bytes": contender.resident_bytes,
            "stored_bytes": contender.stored_bytes,
            "load_seconds": {},
        }
        known = self.content["contenders"].setdefault(name, facts)
        known["load_seconds"][str(threads)] = contender.load_seconds

    def add(self, cell: Cell, times: Mapping[str, Sequence[float]]) -> None:
        """Keep a cell's times and write the file."""
        self.content["cells"].append(cell_record(cell, times))
        self.content |= headline(self.content["cells"])
        if self.file is not None:
            write_file(self.file, [strict_json(self.content, indent=2), "\n"])

    def _take_over(self, file: Path) -> None:
        try:
            earlier = json.loads(file.read_text(encoding="utf-8"))
            was = earlier["settings"], {name: earlier["environment"][name] for name in _DECIDES}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{file} is no record of this benchmark; give --json another name."
            ) from error
        now = self.content["settings"], {n: self.content["environment"][n] for n in _DECIDES}
        for old, new in zip(was, now, strict=True):
            for key in sorted({*old, *new}):
                if old.get(key) != new.get(key):
                    raise ValueError(
                        f"{file} was measured with {key}={old.get(key)}, and this is "
                        f"{key}={new.get(key)}; delete it or give --json another name."
                    )
        self.content |= {key: value for key, value in earlier.items() if key != "environment"}


def headline(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """speedup_vs_<opponent> of the headline's cell, and the same at each number of threads.

    The top one is that of as many threads as the machine lets this process use, where measured,
    else of the most that were.
    """
    measured = {cell["threads"]: cell["speedup"] for cell in cells if is_headline(cell)}
    if not measured:
        return {}
    threads = usable_threads()
    threads = threads if threads in measured else max(measured)
    return {
        "headline": {**HEADLINE, "threads": threads},
        **{f"speedup_vs_{name}": ratio for name, ratio in measured[threads].items()},
        **{
            f"speedup_vs_{name}_by_threads": {str(n): measured[n][name] for n in sorted(measured)}
            for name in measured[threads]
        },
    }


def usable_threads() -> int:
    """Processors that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """The processor's name, and the versions of the packages that are measured."""
    packages = versions("torch", "transformers", "ctranslate2", "onnxruntime")
    return {"processor": processor_name(), "packages": packages}


def processor_name() -> str:
    """As Linux names it, else as Python does."""
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
