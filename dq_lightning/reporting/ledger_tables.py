"""``python -m dq_lightning.reporting ledger``: published numbers beside measured ones.

One table a data set and one of sizes. Below them: the recipe of every run that is shown, where the
published numbers are from, and what is not known.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dq_lightning.reporting.formats import MISSING, markdown_table
from dq_lightning.reporting.ledger import (
    FULL_PRECISION,
    Content,
    Entry,
    Measured,
    cell,
    read_measured,
    score_entries,
    size_entries,
    unmatched,
)
from dq_lightning.reporting.terminal import print_table, table_width

STUDY = Path("experiments/dq_bart")
NOT_RUN = "not run"
HEADER = ("method", "bits layers", "published", "grade", "measured", "difference", "run")


@dataclass
class Section:
    """A table whose number cells hold one number for each of `names`."""

    title: str
    names: Sequence[str]
    rows: list[list[list[str]]] = field(default_factory=list)

    def table(self, joint: str) -> list[list[str]]:
        return [[joint.join(parts) for parts in row] for row in self.rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the ledger; 0, or 2 with one sentence on stderr."""
    parser = argparse.ArgumentParser(
        "python -m dq_lightning.reporting ledger", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("--study", type=Path, default=STUDY, help="folder of published.json")
    parser.add_argument(
        "--records", type=Path, nargs="+", metavar="DIR",
        help="records, run directories or sweeps; default: results/ of the study",
    )  # fmt: skip
    parser.add_argument("--markdown", action="store_true", help="as markdown")
    given = parser.parse_args(arguments)
    file: Path = given.study / "published.json"
    absent = [path for path in (file, *(given.records or ())) if not path.exists()]
    if absent:
        print(
            f"{absent[0]} does not exist; run this in the repository's root, or name the folders "
            "with --study and --records.",
            file=sys.stderr,
        )
        return 2
    published = json.loads(file.read_text(encoding="utf-8"))
    results, sizes = (
        [folder] if (folder := given.study / name).exists() else [] for name in ("results", "sizes")
    )
    found, unreadable = read_measured(given.records or results)
    counted, more = read_measured(sizes)
    sections, notes = ledger(published, found, counted)
    (print_markdown if given.markdown else print_tables)(sections, [*notes, *unreadable, *more])
    return 0


def ledger(
    published: Content, measured: Sequence[Measured], sizes: Sequence[Measured]
) -> tuple[list[Section], list[str]]:
    """The tables, and the lines below them."""
    entries = score_entries(published, measured)
    shown = [entry.measured for entry in entries if entry.measured]
    runs = list({run.where: run for run in (*shown, *unmatched(published, measured))}.values())
    sections: list[Section] = []
    for name, data in published["data"].items():
        section = Section(f"{data['title']}: {'/'.join(data['metrics'])}", data["metrics"])
        section.rows = [_row(e, runs) for e in entries if e.published["data"] == name]
        sections.append(section)
    for quantity, title in (("ratio", "times smaller"), ("mib", "MiB")):
        section = Section(f"Sizes of {', '.join(published['models'])}: {title}", [quantity])
        chosen = (e for e in size_entries(published, sizes))
        section.rows = [_row(e, []) for e in chosen if e.published["quantity"] == quantity]
        sections.append(section)
    others = {run.where for run in unmatched(published, measured)}
    teachers = {e.measured.where for e in entries
                if e.measured and cell(e.published)["bits"] == FULL_PRECISION}  # fmt: skip
    notes = [
        f"[{number}] {recipe(run)}{_aside(run, others - teachers)}"
        for number, run in enumerate(runs, start=1)
    ]
    commits = {_commit(size.content["environment"]) for size in sizes}
    counted = [f"Sizes: counted by python -m dq_lightning.benchmarks.size at {', '.join(commits)}; "
               "MiB with the saved buffers."] if sizes else []  # fmt: skip
    return sections, [*notes, *counted, *_sources(published)]


def recipe(run: Measured) -> str:
    """What ran: bits, layers, steps, seed, device, data, commit, how it was scored, the file."""
    metrics, environment = run.content["metrics"], run.content["environment"]
    facts = metrics["run"]
    part = ((run.content["config"].get("data") or {}).get("limit_test") is not None) * " only"
    return ", ".join(
        [
            metrics["cell"]["name"],
            f"{facts['steps']:,} steps",
            f"seed {facts['seed']}",
            str(facts["device"]),
            f"{facts.get('train_rows', 0):,} training and {facts.get('test_rows', 0):,} test rows"
            f"{part}",
            _commit(environment),
            *([metrics["metric_recipe"]] if metrics.get("metric_recipe") else []),
            run.where,
        ]
    )


def print_tables(
    sections: Sequence[Section], notes: Sequence[str], console: Console | None = None
) -> None:
    """Plain text where the output is no terminal; several numbers a line where the width allows."""
    console = console or Console()
    for section in sections:
        table = _rich(section, "/")
        if console.is_terminal and table_width(table, console) > console.width:
            table = _rich(section, "\n")
        print_table(table, console)
    for note in notes:
        console.print(Text(note), soft_wrap=not console.is_terminal)


def print_markdown(sections: Sequence[Section], notes: Sequence[str]) -> None:
    for section in sections:
        print(f"### {section.title}\n\n{markdown_table(HEADER, section.table('/'))}\n")
    print("\n".join(f"- {note}" for note in notes))


def _rich(section: Section, joint: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, title=section.title, title_justify="left", pad_edge=False,
        collapse_padding=True,
    )  # fmt: skip
    for name in HEADER:
        table.add_column(name, justify="left" if name in HEADER[:2] else "right", no_wrap=True)
    for row in section.table(joint):
        style = "green" if row[-1] else ""
        table.add_row(*map(Text, row), style=style)
    return table


def _row(entry: Entry, runs: Sequence[Measured]) -> list[list[str]]:
    row = entry.published
    scores: Content | None = row.get("scores")
    values: Content = scores or {row["quantity"]: row["value"]}
    known = any(value is not None for value in values.values())
    printed = [_shown(value, 2 if scores else 1) for value in values.values()]
    pairs = [(values[name], number) for name, number in entry.numbers.items()]
    differences = [None if old is None or new is None else new - old for old, new in pairs]
    number = [str(runs.index(entry.measured) + 1)] if entry.measured in runs else [""]
    return [
        [row["method"]],
        [f"{row['bits']} {row['layers']}"],
        printed if known else [row["status"]],
        [row["grade"]],
        [_shown(new, 2) for _, new in pairs] or [NOT_RUN],
        [_shown(d, 2, "+") for d in differences] if pairs and known else [MISSING],
        number,
    ]


def _shown(value: float | None, decimals: int, sign: str = "") -> str:
    if value is None:
        return MISSING
    return f"{round(value, decimals) + 0.0:{sign}.{decimals}f}"  # + 0.0 turns -0.0 into 0.0


def _commit(environment: Content) -> str:
    dirty = " with uncommitted changes" * bool(environment.get("git_dirty"))
    return f"commit {str(environment.get('git_sha'))[:10]}{dirty}"


def _aside(run: Measured, others: set[str]) -> str:
    return " (no published row: its scores are in its record)" if run.where in others else ""


def _sources(published: Content) -> list[str]:
    rows = [*published["scores"], *published["sizes"]]
    grades = [f"{grade} {meaning}" for grade, meaning in published["grades"].items()]
    sources = list(dict.fromkeys(row["source"] for row in rows if row["source"]))
    methods = [f"{name}: {method['source']}." for name, method in published["methods"].items()]
    notes = dict.fromkeys(f"{published['data'][row['data']]['title']}: {row['note']}."
                          for row in published["scores"] if "note" in row)  # fmt: skip
    return [
        f"Grades: {'; '.join(grades)}.",
        f"Published numbers: {'; '.join(sources)}.",
        *methods,
        *notes,
        *(f"{missing['what']}: {missing['status']}." for missing in published["missing"]),
    ]
