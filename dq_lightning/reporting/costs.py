"""What a student costs, and by which of two numbers: bits counted (nominal) or bytes on disk."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dq_lightning.reporting.collect import Row
from dq_lightning.reporting.formats import format_bytes, format_ratio


@dataclass(frozen=True)
class Size:
    """A size as tables name it, and the row's columns that hold it and its ratio."""

    title: str
    size: str
    ratio: str

    def header(self) -> list[str]:
        return [self.title, "ratio"]

    def shown(self, row: Row, exact: bool = True) -> list[str]:
        return [format_bytes(row[self.size], exact), format_ratio(row[self.ratio])]


NOMINAL = Size("nominal size", "nominal_bytes", "ratio")
ON_DISK = Size("on disk", "stored_bytes", "stored_ratio")


def sizes_of(rows: Iterable[Row]) -> list[Size]:
    """Both, or the nominal one alone where no cell has a packed file."""
    return [NOMINAL, ON_DISK] if any(row["stored_bytes"] for row in rows) else [NOMINAL]


def main_size(rows: Iterable[Row]) -> Size:
    """The one size to show: on disk where every cell that has a size has that one."""
    sized = [row for row in rows if row["nominal_bytes"] or row["stored_bytes"]]
    return ON_DISK if sized and all(row["stored_bytes"] for row in sized) else NOMINAL


def timed_writer(rows: Iterable[Row]) -> str:
    """Whose time to show: the packed file's where every cell that was timed has that one."""
    times = [row["times"] for row in rows]
    timed = [t for t in times if t["student_seconds_an_item"] or t["packed_seconds_an_item"]]
    every = timed and all(t["packed_seconds_an_item"] for t in timed)
    return "packed" if every else "student"


def teacher_size(size: float | None, columns: Sequence[Size], exact: bool = True) -> list[str]:
    """The teacher's float32 bytes, which both ratios are taken against, once for each size."""
    return [format_bytes(size, exact), format_ratio(1.0)] * len(columns)
