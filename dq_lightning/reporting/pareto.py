"""Which cells are worth their size: the direction of a metric and the front of two of them."""

from collections.abc import Iterable, Sequence

from dq_lightning.reporting.collect import Row


def lower_is_better(rows: Iterable[Row], metric: str) -> bool | None:
    """What the drop's sign tells of a metric; None where no cell differs from its teacher."""
    for row in rows:
        teacher, student = row["teacher"]["metrics"].get(metric), row.get(metric)
        drop = row.get(f"{metric}_drop")
        if drop and teacher is not None and student is not None and teacher != student:
            return (student > teacher) == (drop > 0)
    return None


def front(points: Sequence[tuple[float, float]], lower: bool) -> list[int]:
    """Indices of the points (cost, score) that no other beats in both, from cheap to dear."""
    sign = 1.0 if lower else -1.0
    best = float("inf")
    found: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], sign * points[i][1])):
        score = sign * points[index][1]
        if score < best:
            best = score
            found.append(index)
    return found


def best_row(rows: Sequence[Row], metric: str | None) -> Row | None:
    """The row with the best score; None where none is finished or no direction is known."""
    if metric is None:
        return None
    lower = lower_is_better(rows, metric)
    scored = [row for row in rows if row.get(metric) is not None]
    if lower is None or not scored:
        return None
    return (min if lower else max)(scored, key=lambda row: row[metric])
