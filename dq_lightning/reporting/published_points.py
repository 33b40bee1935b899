"""Published rows that a sweep's cells may be drawn beside: same data set, same metric."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dq_lightning.reporting.collect import Row
from dq_lightning.reporting.ledger import FULL_PRECISION, cell

PUBLISHED = Path(__file__).parents[2] / "experiments" / "dq_bart" / "published.json"


def published_points(
    rows: Sequence[Row], configs: Sequence[Mapping[str, Any]], file: Path = PUBLISHED
) -> list[dict[str, Any]]:
    """Method, cell, bytes, scores and source of every row of the ledger that belongs here.

    None belong to a sweep over several data sets or over a part of a test set. A row's bytes follow
    from its published ratio, else from the sweep's own cell of the same bits and layers (the same
    accounting); a row without either has no place.
    """
    found = {(c.get("data.name"), c.get("data.limit_test")) for c in configs if c}
    if len(found) != 1:
        return []
    ((name, limit),) = found
    try:
        published = json.loads(file.read_text(encoding="utf-8"))
        data = {key for key, value in published["data"].items() if name in value["names"]}
        sizes = _known_bytes(published, rows)
        points = [_point(row, sizes) for row in published["scores"] if row["data"] in data]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []  # an installed package comes without experiments/
    known = [p for p in points if p["bytes"] and any(p["scores"].values())]
    return known if limit is None and name is not None else []


def _point(row: Mapping[str, Any], sizes: Mapping[tuple[str, str, str], float]) -> dict[str, Any]:
    place = cell(dict(row))
    bits, layers = place["bits"], place["layers"]
    size = sizes.get((row["method"], bits, layers)) or sizes.get(("", bits, layers))
    return {
        "method": row["method"],
        "cell": f"{bits} {layers}",
        "bytes": size,
        "scores": row["scores"],
        "source": row["source"] or "",
        "grade": row.get("grade"),
    }


def _known_bytes(
    published: Mapping[str, Any], rows: Sequence[Row]
) -> dict[tuple[str, str, str], float]:
    """(method, bits, layers) -> bytes; the method is empty for what this sweep counted itself."""
    known: dict[tuple[str, str, str], float] = {}
    for row in rows:
        bits = "-".join(str(row[f"{site}_bits"]) for site in ("weight", "embedding", "activation"))
        layers = f"{row['encoder_layers']}-{row['decoder_layers']}"
        if row["nominal_bytes"]:
            known["", bits, layers] = row["nominal_bytes"]
    for size in published["sizes"]:
        whole = published["models"][size["model"]]["bytes"]
        if not any(row["teacher"]["bytes"] == whole for row in rows):
            continue  # ratios of another model
        place = cell(size)
        known["", FULL_PRECISION, "6-6"] = whole
        if size["quantity"] == "ratio" and size["value"]:
            known[size["method"], place["bits"], place["layers"]] = whole / size["value"]
    return known
