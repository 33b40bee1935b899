"""What a person sees of a running sweep: one live picture on a terminal, else plain lines."""

import contextlib
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from typing import Any, final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.sweeps.manifest import Cell
from dq_lightning.sweeps.outcome import last_error, primary_drop, scores


class View(ABC):
    """Follows the cells of a sweep by their run folders and tells a person about them.

    num_slots: cells that run at a time, for the time left.
    """

    def __init__(self, cells: Sequence[Cell], num_slots: int) -> None:
        self.cells = {cell.id: cell for cell in cells}
        self.labels = labels(cells)
        self.best: tuple[float, str] | None = None  # the smallest drop so far, and whose it is
        self.num_slots = num_slots
        self.states = dict.fromkeys(self.cells, "queued")
        self.began: dict[str, float] = {}
        self.took: dict[str, float] = {}

    def skip(self, ids: Sequence[str]) -> None:
        """These are finished already."""
        self.states.update(dict.fromkeys(ids, "skipped"))
        for name in ids:
            self._compare(name)
        if ids:
            self.say(f"{count(len(ids), 'cell')} finished already, {self.left()} to run")

    def show(self, running: Sequence[str]) -> None:
        """Called some times a second with the cells that run now."""
        for name in running:
            if self.states[name] == "queued":
                self.states[name] = "running"
                self.began[name] = time.monotonic()
                self.say(f"{self._place()} started   {self.labels[name]}")
        self.draw()

    def end(self, name: str, well: bool) -> None:
        """A cell's process has ended."""
        self.took[name] = time.monotonic() - self.began.get(name, time.monotonic())
        self.states[name] = "finished" if well else "failed"
        cell = self.cells[name]
        what = scores(cell.folder) if well else last_error(cell.folder)
        took = clock(self.took[name])
        words = [self._place(), self.states[name].ljust(9), self.labels[name], took, what]
        self._compare(name)
        self.say("  ".join(words) + self._outlook())

    def number(self, *states: str) -> int:
        return sum(state in states for state in self.states.values())

    def left(self) -> int:
        return self.number("queued", "running")

    def seconds_left(self) -> float | None:
        """By the mean of the cells that ran; None before the first has ended."""
        done = [seconds for name, seconds in self.took.items() if self.states[name] == "finished"]
        if not done:
            return None
        mean, now = sum(done) / len(done), time.monotonic()
        rest = [
            mean - (now - self.began[name] if state == "running" else 0.0)
            for name, state in self.states.items()
            if state in ("queued", "running")
        ]
        return sum(max(0.0, seconds) for seconds in rest) / self.num_slots

    def _compare(self, name: str) -> None:
        folder = self.cells[name].folder
        drop = primary_drop(folder)
        if drop is not None and (self.best is None or drop < self.best[0]):
            self.best = drop, f"{self.labels[name]}  {scores(folder)}"

    def _place(self) -> str:
        return f"[{self.number('finished', 'skipped', 'failed')}/{len(self.cells)}]"

    def _outlook(self) -> str:
        seconds = self.seconds_left()
        return f"  about {clock(seconds)} left" if seconds and self.left() else ""

    @abstractmethod
    def say(self, line: str) -> None:
        """Print one line that stays."""

    @abstractmethod
    def draw(self) -> None:
        """Renew what does not stay."""


@final
class Lines(View):
    """For log files: a line as each cell starts and ends, nothing between."""

    def say(self, line: str) -> None:
        print(line, flush=True)

    def draw(self) -> None:
        pass


@final
class Picture(View):
    """For terminals: the running cells with a bar each, and the whole sweep below them."""

    def __init__(self, cells: Sequence[Cell], num_slots: int, live: Live) -> None:
        super().__init__(cells, num_slots)
        self.live = live

    def say(self, line: str) -> None:
        self.live.console.print(Text(line), highlight=False)

    def draw(self) -> None:
        table = Table.grid(padding=(0, 2))
        for name, state in self.states.items():
            if state == "running":
                seconds = time.monotonic() - self.began[name]
                table.add_row(self.labels[name], *_row(self.cells[name], seconds))
        done, failed = self.number("finished", "skipped"), self.number("failed")
        seconds = self.seconds_left()
        words = [
            f"{done} of {len(self.cells)} cells done",
            f"{failed} failed" if failed else "",
            f"{self.number('running')} running, {self.number('queued')} queued",
            f"about {clock(seconds)} left" if seconds else "",
            f"best: {self.best[1]}" if self.best else "",
        ]
        self.live.update(Group(table, Text(" · ".join(filter(None, words)), style="bold")))


def _row(cell: Cell, seconds: float) -> list[Any]:
    progress = Artifact(cell.folder).read_object("progress.json")
    step, steps = progress.get("step", 0), progress.get("steps") or 1
    validation = "  ".join(
        f"{name} {value:.2f}"
        for name, value in progress.get("validation", {}).items()
        if value is not None  # not a number
    )
    return [
        ProgressBar(total=steps, completed=step, width=24),
        f"{step:,}/{steps:,}" if progress else "starting",
        progress.get("stage", ""),
        clock(seconds),
        validation,
    ]


@contextlib.contextmanager
def sweep_view(cells: Sequence[Cell], num_slots: int) -> Generator[View, None, None]:
    """A live picture where stdout is a terminal, plain lines elsewhere."""
    if not sys.stdout.isatty():
        yield Lines(cells, num_slots)
        return
    with Live(console=Console(), transient=True, refresh_per_second=4) as live:
        yield Picture(cells, num_slots, live)


def labels(cells: Sequence[Cell]) -> dict[str, str]:
    """Each cell's name by its id, with the overrides that tell it from others of its name."""
    found: dict[str, str] = {}
    for cell in cells:
        namesakes = [set(other.overrides) for other in cells if other.name == cell.name]
        shared = set.intersection(*namesakes)
        own = [word for word in cell.overrides if word not in shared]
        found[cell.id] = " ".join([cell.name, *own])
    return found


def count(number: int, noun: str) -> str:
    """
    >>> count(1, "cell"), count(9, "cell")
    ('1 cell', '9 cells')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def clock(seconds: float) -> str:
    """
    >>> clock(75), clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
