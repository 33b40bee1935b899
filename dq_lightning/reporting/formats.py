"""Numbers and tables as people read them: shared decimals, units, aligned columns."""

from collections.abc import Iterable, Sequence

MISSING = "-"


def format_metric(value: float | None, column: Iterable[float | None], sign: bool = False) -> str:
    """Two decimals for percentages, four for columns of fractions."""
    if value is None:
        return MISSING
    largest = max((abs(other) for other in column if other is not None), default=0.0)
    return f"{value:{'+' if sign else ''}.{2 if largest > 1 else 4}f}"


def format_bytes(size: float | None, exact: bool = True) -> str:
    """``1,234,567 B (1.18 MiB)``, or ``1.18 MiB`` alone."""
    if size is None:
        return MISSING
    scaled, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(scaled) < 1024:
            break
        scaled, unit = scaled / 1024, larger
    if unit == "B":
        return f"{size:,} B"
    short = f"{scaled:.2f} {unit}"
    return f"{size:,} B ({short})" if exact else short


def format_ratio(ratio: float | None) -> str:
    return MISSING if ratio is None else f"{ratio:.{2 if ratio < 10 else 1}f}x"


def format_share(share: float | None) -> str:
    """``99.84 %``; ``100 %`` is every single one."""
    if share is None:
        return MISSING
    return "100 %" if share == 1 else f"{min(round(100 * share, 2), 99.99):.2f} %"


def format_speed(items_per_second: float | None) -> str:
    return MISSING if items_per_second is None else f"{items_per_second:,.1f}"


def format_seconds(seconds: float | None) -> str:
    """``3.2 ms``, ``12.3 s``, ``4 min 05 s`` or ``2 h 03 min``."""
    if seconds is None:
        return MISSING
    if seconds < 0.1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [
        [str(item).replace("|", "\\|").replace("\n", " ") for item in line]
        for line in (header, *body)
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    # The first two columns are words, the rest are numbers.
    rule = ["-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    padded = [
        [
            c.ljust(w) if i < 2 else c.rjust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in (padded[0], rule, *padded[1:]))
