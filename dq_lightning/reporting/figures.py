"""Figures of a study's committed records.

python -m dq_lightning.reporting.figures grid <folder of records> <file.svg>
python -m dq_lightning.reporting.figures recipes <folder of recipe folders> <file.svg>
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dq_lightning.artifacts.atomic import write_file
from dq_lightning.reporting.records import Record, drops, read_recipes, read_records

# Okabe and Ito's colours: told apart by colour-blind readers and, with the markers, in print.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def grid_figure(records: Sequence[Record]) -> Figure:
    """The drop of the primary metric against size, one line a bit-width.

    Size is bytes on disk where all records have them, else nominal bytes.
    """
    figure, axes = canvas()
    on_disk = all("stored" in record["metrics"]["bytes"] for record in records)
    key, label = ("stored", "size on disk") if on_disk else ("student_nominal", "nominal size")
    primary = records[0]["metrics"]["primary_metric"]
    widths = sorted({record["metrics"]["cell"]["weight_bits"] for record in records})
    for number, bits in enumerate(widths):
        found = [r["metrics"] for r in records if r["metrics"]["cell"]["weight_bits"] == bits]
        found.sort(key=lambda metrics: metrics["bytes"][key])
        sizes = [metrics["bytes"][key] / 1e6 for metrics in found]
        lost = [metrics["drop"][primary] for metrics in found]
        axes.plot(
            sizes, lost, marker=MARKERS[number], color=COLOURS[number], label=f"{bits}-bit weights"
        )
        for size, drop, metrics in zip(sizes, lost, found, strict=True):
            layers = f"{metrics['cell']['encoder_layers']}-{metrics['cell']['decoder_layers']}"
            axes.annotate(layers, (size, drop), (5, 4), textcoords="offset points", fontsize=8)
    axes.axhline(0.0, color="0.5", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel(f"{label}, MB (labels: encoder-decoder layers)")
    axes.set_ylabel(f"{primary.upper()} lost against the teacher, points")
    axes.legend(frameon=False)
    return figure


def recipes_figure(recipes: dict[str, list[Record]]) -> Figure:
    """The drop of the primary metric of each recipe: a bar a mean, a dot a seed, a panel a cell."""
    primary = next(iter(recipes.values()))[0]["metrics"]["primary_metric"]
    cells = sorted({r["metrics"]["cell"]["name"] for rs in recipes.values() for r in rs})[::-1]
    figure = Figure(figsize=(4.2 * len(cells), 0.42 * len(recipes) + 1.2), layout="constrained")
    panels = figure.subplots(1, len(cells), squeeze=False)[0]
    for cell, axes in zip(cells, panels, strict=True):
        found = {
            name: drops([r for r in records if r["metrics"]["cell"]["name"] == cell], primary)
            for name, records in recipes.items()
        }
        ordered = sorted((item for item in found.items() if item[1]), key=lambda i: -mean(i[1]))
        for row, (_, values) in enumerate(ordered):
            axes.barh(row, mean(values), height=0.6, color=COLOURS[5])
            axes.plot(values, [row] * len(values), "o", color=COLOURS[0], markersize=4)
        axes.set_yticks(range(len(ordered)), [name for name, _ in ordered])
        axes.set_title(cell, fontsize=10)
        axes.set_xlabel(f"{primary.upper()} lost against the teacher, points")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write an SVG or PNG that is the same, byte for byte, for the same numbers."""
    content = io.BytesIO()
    kind = path.suffix[1:]
    with rc_context({"svg.hashsalt": "dq_lightning"}):
        figure.savefig(
            content, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None
        )
    write_file(path, [content.getvalue()])


def canvas() -> tuple[Figure, Axes]:
    """An empty figure in the style of all figures here."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def main() -> None:
    """Draw one figure into a file."""
    parser = argparse.ArgumentParser("python -m dq_lightning.reporting.figures")
    parser.add_argument("kind", choices=("grid", "recipes"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    if arguments.kind == "grid":
        figure = grid_figure(read_records([arguments.folder]))
    else:
        figure = recipes_figure(read_recipes(arguments.folder))
    save(figure, arguments.file)


if __name__ == "__main__":
    main()
