"""A sweep's figures for a paper: grid.*, size.* and time.*, each as PNG and SVG."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from dq_lightning.reporting.collect import Row
from dq_lightning.reporting.costs import main_size, timed_writer
from dq_lightning.reporting.figures import COLOURS, MARKERS, canvas, save
from dq_lightning.reporting.formats import format_metric
from dq_lightning.reporting.pareto import front, lower_is_better
from dq_lightning.reporting.tables import teachers

FAR_APART = 10


@dataclass(frozen=True)
class Cost:
    """An axis: what it measures, of a row's student, and of the teacher that stands in the row."""

    label: str
    student: Callable[[Row], float | None]
    teacher: Callable[[Row], float | None]
    log: bool = False


def write_figures(rows: Sequence[Row], folder: Path) -> None:
    """Writes what the finished cells allow; nothing where none is finished."""
    primary = next((row["primary_metric"] for row in rows if row["primary_metric"]), None)
    finished = [row for row in rows if primary and row.get(primary) is not None]
    if not finished:
        return
    assert primary is not None, "a finished row has been found by it"
    with rc_context({"text.parse_math": False}):  # a name may hold dollars
        figures = {
            "grid": drop_figure(finished, primary),
            "size": cost_figure(finished, primary, size_cost(finished)),
            "time": cost_figure(finished, primary, time_cost(finished)),
        }
        for name, figure in figures.items():
            if figure is not None:
                for kind in ("png", "svg"):
                    save(figure, folder / f"{name}.{kind}")


def drop_figure(rows: Sequence[Row], metric: str) -> Figure | None:
    """Bits x layers: the drop of the metric, the smallest of several runs; None without a grid."""
    fields: dict[tuple[str, str], float] = {}
    for row in rows:
        place, drop = (_bits(row), _layers(row)), row.get(f"{metric}_drop")
        if drop is not None and None not in (row["weight_bits"], row["encoder_layers"]):
            fields[place] = min(drop, fields.get(place, drop))
    if not fields:
        return None
    bits, layers = (sorted({place[i] for place in fields}, key=_numbers) for i in (0, 1))
    figure, axes = canvas()
    figure.set_size_inches(1.6 + 1.1 * len(bits), 1.4 + 0.7 * len(layers))
    values = [[fields.get((b, e), float("nan")) for b in bits] for e in layers]
    axes.imshow(values, cmap="cividis_r", origin="lower", aspect="auto")
    low, high = min(fields.values()), max(fields.values())
    for (b, e), drop in fields.items():
        text = format_metric(drop, list(fields.values()), sign=True)
        colour = "white" if drop - low > (high - low) / 2 else "black"
        axes.text(bits.index(b), layers.index(e), text, ha="center", va="center", color=colour)
    axes.set_xticks(range(len(bits)), bits)
    axes.set_yticks(range(len(layers)), layers)
    axes.set_xlabel("bits (weights-embeddings-activations)")
    axes.set_ylabel("layers (encoder-decoder)")
    axes.set_title(f"{metric} lost against the teacher, points", fontsize=10)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def size_cost(rows: Sequence[Row]) -> Cost:
    """Bytes on disk where all rows have them, else nominal ones."""
    size = main_size(rows)

    def megabytes(count: float | None) -> float | None:
        return count / 1e6 if count else None

    label = f"{size.title.replace('on disk', 'size on disk')}, MB"
    return Cost(
        label,
        lambda row: megabytes(row[size.size]),
        lambda row: megabytes(row["teacher"]["bytes"]),
        log=True,
    )


def time_cost(rows: Sequence[Row]) -> Cost:
    """The packed file's time where all rows have it, else the student's own.

    Logarithmic where times lie so far apart that a plain axis would draw the students in one place.
    """
    writer = timed_writer(rows)

    def milliseconds(row: Row, who: str) -> float | None:
        seconds = row["times"][f"{who}_seconds_an_item"]
        return seconds * 1000 if seconds else None

    times = [t for row in rows for who in (writer, "teacher") if (t := milliseconds(row, who))]
    whose = "the packed file's" if writer == "packed" else "the student's"
    return Cost(
        f"{whose} generation time, ms an item",
        lambda row: milliseconds(row, writer),
        lambda row: milliseconds(row, "teacher"),
        log=bool(times) and max(times) > FAR_APART * min(times),
    )


def cost_figure(rows: Sequence[Row], metric: str, cost: Cost) -> Figure | None:
    """The metric against a cost, one marker a bit-width, with Pareto front and teacher."""
    points = [(x, row) for row in rows if (x := cost.student(row)) is not None]
    if not points:
        return None
    figure, axes = canvas()
    for number, bits in enumerate(sorted({_bits(row) for _, row in points}, key=_numbers)):
        own = [(x, row[metric]) for x, row in points if _bits(row) == bits]
        style: dict[str, Any] = {
            "marker": MARKERS[number % len(MARKERS)],
            "color": COLOURS[number % len(COLOURS)],
        }
        axes.plot(*zip(*own, strict=True), linestyle="", label=bits, **style)
    if len(points) <= 16:
        for x, row in points:
            axes.annotate(
                _layers(row), (x, row[metric]), (5, 4), textcoords="offset points", fontsize=8
            )
    lower = lower_is_better(rows, metric)
    _draw_front(axes, [(x, row[metric]) for x, row in points], lower)
    _draw_teachers(axes, rows, metric, cost)
    if cost.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(left=0.0)
    axes.set_xlabel(f"{cost.label} (labels: encoder-decoder layers)")
    better = {None: "", True: " (lower is better)", False: " (higher is better)"}[lower]
    axes.set_ylabel(metric + better)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _draw_front(axes: Axes, points: Sequence[tuple[float, float]], lower: bool | None) -> None:
    if lower is not None:
        best = [points[index] for index in front(points, lower)]
        style: dict[str, Any] = {"color": "0.5", "linewidth": 0.8, "linestyle": ":", "zorder": 0}
        axes.step(*zip(*best, strict=True), where="post", label="Pareto front", **style)


def _draw_teachers(axes: Axes, rows: Sequence[Row], metric: str, cost: Cost) -> None:
    style: dict[str, Any] = {"marker": "*", "markersize": 11, "color": "black", "linestyle": ""}
    for teacher in teachers(rows):
        found = (cost.teacher(row) for row in rows if row["teacher"] == teacher)
        x = next((value for value in found if value), None)
        if x is not None and metric in teacher["metrics"]:
            axes.plot(x, teacher["metrics"][metric], label="teacher", **style)


def _bits(row: Row) -> str:
    sites = ("weight", "embedding", "activation")
    known = row["weight_bits"] is not None
    return "-".join(str(row[f"{site}_bits"]) for site in sites) if known else row["cell"]


def _layers(row: Row) -> str:
    known = row["encoder_layers"] is not None
    return f"{row['encoder_layers']}-{row['decoder_layers']}" if known else ""


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
