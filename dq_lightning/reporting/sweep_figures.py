"""A sweep's figures for a paper: grid.*, size.* and time.*, each as PNG and SVG."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from dq_lightning.reporting.collect import Row
from dq_lightning.reporting.figures import COLOURS, MARKERS, canvas, save
from dq_lightning.reporting.formats import format_metric
from dq_lightning.reporting.pareto import front, lower_is_better
from dq_lightning.reporting.tables import teachers

Cost = Callable[[Row], float | None]


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
            "size": cost_figure(finished, primary, "nominal size, MB", _megabytes),
            "time": cost_figure(finished, primary, "generation time, ms an item", _milliseconds),
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


def cost_figure(rows: Sequence[Row], metric: str, label: str, cost: Cost) -> Figure | None:
    """The metric against a cost, one marker a bit-width, with Pareto front and teacher."""
    points = [(x, row) for row in rows if (x := cost(row)) is not None]
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
    if cost is _megabytes:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(left=0.0)
    axes.set_xlabel(f"{label} (labels: encoder-decoder layers)")
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
        x = teacher["bytes"] / 1e6 if teacher["bytes"] else None
        if cost is _milliseconds:
            times = [_milliseconds(row, "teacher") for row in rows if row["teacher"] == teacher]
            x = next((time for time in times if time), None)
        if x is not None and metric in teacher["metrics"]:
            axes.plot(x, teacher["metrics"][metric], label="teacher", **style)


def _megabytes(row: Row) -> float | None:
    return row["nominal_bytes"] / 1e6 if row["nominal_bytes"] else None


def _milliseconds(row: Row, who: str = "student") -> float | None:
    seconds = row["times"][f"{who}_seconds_an_item"]
    return None if seconds is None else seconds * 1000


def _bits(row: Row) -> str:
    sites = ("weight", "embedding", "activation")
    known = row["weight_bits"] is not None
    return "-".join(str(row[f"{site}_bits"]) for site in sites) if known else row["cell"]


def _layers(row: Row) -> str:
    known = row["encoder_layers"] is not None
    return f"{row['encoder_layers']}-{row['decoder_layers']}" if known else ""


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
