"""A latency record in the terminal: what was compared, tokens a second, and ratios."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from dq_lightning.benchmarks.contender import OURS
from dq_lightning.benchmarks.latency import SLOW_SECONDS


def print_latency(content: Mapping[str, Any], console: Console) -> None:
    """The header, a line a cell, and the headline."""
    for line in _header(content):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(_table(content))
    once = any(
        len(one["runs"]) < len(cell["contenders"][OURS]["runs"])
        for cell in content["cells"]
        for one in cell["contenders"].values()
    )
    if once:
        console.print(f"* one run: it takes more than {SLOW_SECONDS:.0f} s", highlight=False)


def _header(content: Mapping[str, Any]) -> list[str]:
    settings, environment = content["settings"], content["environment"]
    given = (f"{key}={value}" for key, value in settings.items() if value is not None)
    versions = (f"{name} {version}" for name, version in environment["packages"].items() if version)
    commit = (environment["git_sha"] or "unknown")[:12]
    dirty = " with changes" if environment["git_dirty"] else ""
    lines = [
        f"{environment['processor']}, {environment['cpu_count']} processors; {', '.join(versions)}; "
        f"commit {commit}{dirty}",
        f"{' '.join(given)}; median of the runs, all in turns, end-of-sequence forbidden",
    ]
    for name, one in content["contenders"].items():
        seconds = one["load_seconds"].values()
        facts = [
            one["description"],
            *(f"{one[key]:,} bytes {word}" for key, word in _BYTES.items() if one[key]),
            *(f"loads in {min(seconds):.2f} s" for _ in [0] if None not in seconds),
        ]
        lines.append(f"{name}: {'; '.join(facts)}")
    return lines


_BYTES = {"resident_bytes": "in memory", "stored_bytes": "on disk"}


def _table(content: Mapping[str, Any]) -> Table:
    names = list(content["contenders"])
    opponents = [name for name in names if name != OURS]
    table = Table(box=box.SIMPLE_HEAD, title="New tokens a second", title_justify="left")
    for name in ("threads", "batch", "beams", "tokens", *names, *(f"x {n}" for n in opponents)):
        table.add_column(name, justify="right", no_wrap=True)
    for cell in sorted(content["cells"], key=lambda cell: [cell[key] for key in _ORDER]):
        speeds = (_speed(cell, name) for name in names)
        ratios = (f"{cell['speedup'][name]:.2f}" for name in opponents)
        table.add_row(*(str(cell[key]) for key in _ORDER), *speeds, *ratios)
    return table


_ORDER = ("threads", "batch", "beams", "tokens")


def _speed(cell: Mapping[str, Any], name: str) -> str:
    one = cell["contenders"][name]
    fewer = len(one["runs"]) < len(cell["contenders"][OURS]["runs"])
    return f"{one['tokens_per_second']:.1f}{'*' if fewer else ''}"
