"""What teacher and students wrote, as much of it as a page can carry."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_ITEMS = 500  # a cell
MAX_CHARACTERS = 6_000_000  # a page
MAX_LENGTH = 2_000  # a text

Item = dict[str, Any]


def predictions(run_dirs: Sequence[Path | None], most: int = MAX_ITEMS) -> dict[str, Any]:
    """Test items of all cells, evenly spaced over the test set; None stands for no predictions.

    ``sets`` holds sources, references and teacher's texts once for all cells that share them;
    ``students`` has the number of its set and its texts for every cell.
    """
    read = [_read(run_dir, most) if run_dir else None for run_dir in run_dirs]
    found = _shared(read)
    size = len(json.dumps(found, ensure_ascii=False))
    if size > MAX_CHARACTERS and most > 10:
        return predictions(run_dirs, max(10, int(most * 0.9 * MAX_CHARACTERS / size)))
    return found


def _shared(read: Sequence[tuple[int, dict[int, Item]] | None]) -> dict[str, Any]:
    sets: dict[str, int] = {}
    content: list[Item] = []
    students: list[Item | None] = []
    for cell in read:
        if cell is None or not cell[1]:
            students.append(None)
            continue
        total, items = cell
        given: Item = {"total": total, "numbers": [number + 1 for number in items]}
        given["sources"] = [_text(item.get("source")) for item in items.values()]
        given["references"] = [_texts(item.get("references")) for item in items.values()]
        given["teacher"] = [_text(item.get("teacher")) for item in items.values()]
        key = json.dumps(given)
        if key not in sets:
            sets[key] = len(content)
            content.append(given)
        texts = [_text(item.get("student")) for item in items.values()]
        students.append({"set": sets[key], "texts": texts})
    return {"sets": content, "students": students}


def _read(run_dir: Path, most: int) -> tuple[int, dict[int, Item]] | None:
    """How many items there are, and some by their line, from 0; broken lines are left out."""
    try:
        text = (run_dir / "predictions.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    lines = [line for line in text.split("\n") if line.strip()]
    items: dict[int, Item] = {}
    count = min(most, len(lines))
    for number in (k * len(lines) // count for k in range(count)):
        try:
            item = json.loads(lines[number])
        except (ValueError, RecursionError):
            continue
        if isinstance(item, Mapping):
            items[number] = dict(item)
    return len(lines), items


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in map(_text, values[:8]) if text is not None]


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = str(value)
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]} …"
