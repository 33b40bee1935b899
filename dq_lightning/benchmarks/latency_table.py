"""A latency record in the terminal: what was compared, tokens a second, and ratios."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from dq_lightning.benchmarks.contender import OURS
from dq_lightning.benchmarks.latency import SLOW_SECONDS, Cell

_BYTES = {"resident_bytes": "in memory", "stored_bytes": "on disk"}


def print_latency(content: Mapping[str, Any], console: Console) -> None:
    """What was measured and with what, a line a cell, and what stands out of the ordinary."""
    for line in _header(content):
        console.print(line, highlight=False, soft_wrap=True)
    table = _table(content)
    if not console.is_terminal:  # a log file has no width
        unlimited = console.options.update(max_width=10_000)
        console.width = max(console.width, Measurement.get(console, unlimited, table).maximum)
    console.print(table)
    if any(_fewer(cell, name) for cell in content["cells"] for name in cell["contenders"]):
        console.print(f"* run once: slower than {SLOW_SECONDS:.0f} s", highlight=False)


def _header(content: Mapping[str, Any]) -> list[str]:
    settings, environment = content["settings"], content["environment"]
    given = (f"{key}={value}" for key, value in settings.items() if value is not None)
    versions = (f"{name} {version}" for name, version in environment["packages"].items() if version)
    commit = (environment["git_sha"] or "unknown")[:12]
    dirty = " with changes" if environment["git_dirty"] else ""
    return [
        f"{environment['processor']}, {environment['cpu_count']} processors",
        f"{', '.join(versions)}; commit {commit}{dirty}",
        " ".join(given),
        *(_described(name, one) for name, one in content["contenders"].items()),
    ]


def _described(name: str, one: Mapping[str, Any]) -> str:
    facts = [one["description"]]
    facts += [f"{one[key]:,} bytes {where}" for key, where in _BYTES.items() if one[key]]
    seconds = [value for value in one["load_seconds"].values() if value is not None]
    facts += [f"loads in {min(seconds):.2f} s"] if seconds else []
    return f"{name}: {'; '.join(facts)}"


def _table(content: Mapping[str, Any]) -> Table:
    title = f"New tokens a second (median), and how many times faster {OURS} is"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    names = list(content["contenders"])
    table.add_column("", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    cells = {Cell(*(cell[key] for key in Cell.__match_args__)): cell for cell in content["cells"]}
    for key in sorted(cells):
        table.add_row(str(key), *(_speed(cells[key], name) for name in names))
    return table


def _speed(cell: Mapping[str, Any], name: str) -> str:
    speed = f"{cell['contenders'][name]['tokens_per_second']:.1f}"
    ratio = "" if name == OURS else f" ({cell['speedup'][name]:.1f}x)"
    return f"{speed}{ratio}{'*' if _fewer(cell, name) else ''}"


def _fewer(cell: Mapping[str, Any], name: str) -> bool:
    contenders = cell["contenders"]
    return len(contenders[name]["runs"]) < len(contenders[OURS]["runs"])
