r"""``report.tex``: the sweep's table for a paper; needs ``\usepackage{booktabs}``."""

import re
from collections.abc import Sequence

from dq_lightning.reporting.collect import Row, metric_names
from dq_lightning.reporting.costs import sizes_of, teacher_size
from dq_lightning.reporting.formats import MISSING, format_metric
from dq_lightning.reporting.tables import labels, teachers

_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\n": " ",
}


def to_latex(rows: Sequence[Row], name: str) -> str:
    """A booktabs tabular: teachers, finished cells, and in a comment how many there are.

    Metrics with their drops (positive: worse than the teacher), sizes with their ratios.
    """
    names, sizes = metric_names(rows), sizes_of(rows)
    header = ["cell", *(part for n in names for part in (n, "drop"))]
    header += [title for size in sizes for title in size.header()]
    finished = [(m, row) for m, row in zip(labels(rows), rows, strict=True) if row["metrics"]]
    column = {n: [r.get(n) for r in rows] + [t["metrics"].get(n) for t in teachers(rows)]
              for n in names}  # fmt: skip
    above: list[list[str]] = []
    for teacher in teachers(rows):
        scores = [[format_metric(teacher["metrics"].get(n), column[n]), ""] for n in names]
        size = teacher_size(teacher["bytes"], sizes, exact=False)
        above.append(["teacher", *sum(scores, []), *size])
    below: list[list[str]] = []
    for label, row in finished:
        scores = [[format_metric(row.get(n), column[n]),
                   format_metric(row.get(f"{n}_drop"), column[n], sign=True)]
                  for n in names]  # fmt: skip
        shown = [text for size in sizes for text in size.shown(row, exact=False)]
        below.append([label, *sum(scores, []), *shown])
    return "\n".join(
        [
            f"% {' '.join(name.split())}: {len(finished)} of {len(rows)} cells finished.",
            r"% A positive drop is worse than the teacher. Needs booktabs.",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            _line(header),
            r"\midrule",
            *map(_line, above),
            *([r"\midrule"] if above and below else []),
            *map(_line, below),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def escape(text: str) -> str:
    r"""Text as LaTeX prints it: ``a_b & 5 %`` becomes ``a\_b \& 5 \%``."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def _line(parts: Sequence[str]) -> str:
    return " & ".join(_number(part) if part != MISSING else "--" for part in parts) + r" \\"


def _number(part: str) -> str:
    """Signed numbers and ratios as formulas, so that the signs are real ones; the rest escaped."""
    if re.fullmatch(r"[+-][\d.]+", part):
        return f"${part}$"
    ratio = re.fullmatch(r"([\d.]+)x", part)
    return rf"${ratio[1]}\times$" if ratio else escape(part)
