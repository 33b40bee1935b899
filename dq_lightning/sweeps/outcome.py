"""How a cell's run ended, read from its folder."""

from pathlib import Path
from typing import Any

from dq_lightning.artifacts.artifact import Artifact


class CellError(ValueError):
    """A cell that failed; its message is the cell's own last line, which its folder holds too."""


def state(folder: Path) -> str | None:
    """The status that the run wrote last; None before it wrote one."""
    return Artifact(folder).read_object("status.json").get("status")


def finished_metric(folder: Path) -> float | None:
    """The primary test metric of a finished cell, None of any other."""
    metrics = _finished(folder)
    return metrics["student"][metrics["primary_metric"]] if metrics else None


def primary_drop(folder: Path) -> float | None:
    """Points that a finished cell lost against its teacher, if it had one."""
    metrics = _finished(folder)
    return metrics["drop"].get(metrics["primary_metric"]) if metrics else None


def scores(folder: Path) -> str:
    """The primary metric of a finished cell and what it lost, such as wer 31.02 (+2.52)."""
    metrics, drop = _finished(folder), primary_drop(folder)
    if not metrics:
        return ""
    lost = "" if drop is None else f" ({drop:+.2f})"
    return f"{metrics['primary_metric']} {finished_metric(folder):.2f}{lost}"


def last_error(folder: Path) -> str:
    """The line that a failed cell left; empty where there is none."""
    return Artifact(folder).read_object("status.json").get("error", "")


def _finished(folder: Path) -> dict[str, Any]:
    return Artifact(folder).read_object("metrics.json") if state(folder) == "finished" else {}
