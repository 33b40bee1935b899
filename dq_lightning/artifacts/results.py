"""What a run won and lost, as the content of metrics.json."""

from collections.abc import Mapping, Sequence
from typing import Any


def drops(
    teacher: Mapping[str, float], student: Mapping[str, float], higher_is_better: bool
) -> dict[str, float]:
    """Points lost against the teacher, metric by metric: positive is worse, whatever the metric."""
    sign = 1.0 if higher_is_better else -1.0
    both = [name for name in student if name in teacher]
    # + 0.0 turns -0.0 into 0.0
    return {name: sign * (teacher[name] - student[name]) + 0.0 for name in both}


def prediction_rows(
    sources: Sequence[str],
    references: Sequence[Sequence[str]],
    student: Sequence[str],
    teacher: Sequence[str] | None,
) -> list[dict[str, Any]]:
    """One row a test item: source, references, and what each model wrote."""
    written = teacher if teacher is not None else [None] * len(student)
    return [
        {"source": s, "references": list(r), "student": p, "teacher": t}
        for s, r, p, t in zip(sources, references, student, written, strict=True)
    ]
