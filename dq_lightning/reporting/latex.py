r"""``report.tex``: the sweep's table for a paper; needs ``\usepackage{booktabs}``."""

import re
from collections.abc import Sequence

from dq_lightning.reporting.collect import Row, metric_names
from dq_lightning.reporting.formats import MISSING, format_bytes, format_metric, format_ratio
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

    Metrics with their drops (positive: worse than the teacher), nominal size, ratio.
    """
    names = metric_names(rows)
    header = ["cell", *(part for n in names for part in (n, "drop")), "size", "ratio"]
    finished = [(m, row) for m, row in zip(labels(rows), rows, strict=True) if row["metrics"]]
    column = {n: [r.get(n) for r in rows] + [t["metrics"].get(n) for t in teachers(rows)]
              for n in names}  # fmt: skip
    above: list[list[str]] = []
    for teacher in teachers(rows):
        scores = [[format_metric(teacher["metrics"].get(n), column[n]), ""] for n in names]
        size = format_bytes(teacher["bytes"], exact=False)
        above.append(["teacher", *sum(scores, []), size, format_ratio(1.0)])
    below: list[list[str]] = []
    for label, row in finished:
        scores = [[format_metric(row.get(n), column[n]),
                   format_metric(row.get(f"{n}_drop"), column[n], sign=True)]
                  for n in names]  # fmt: skip
        size = format_bytes(row["nominal_bytes"], exact=False)
        below.append([label, *sum(scores, []), size, format_ratio(row["ratio"])])
    return "\n".join(
        [
            f"% {' '.join(name.split())}: {len(finished)} of {len(rows)} cells finished.",
            r"% A positive drop is worse than the teacher; size: nominal bytes. Needs booktabs.",
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
