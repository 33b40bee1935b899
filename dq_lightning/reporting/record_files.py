"""The JSON files that committed records are read from, and one sentence where there is none."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def read_contents(path: Path, key: str, command: str) -> list[Record]:
    """The record in a file, or those of a folder's *.json in the order of their names.

    key: what every such record has. command: what writes one, for the ValueError, one sentence,
    that a path without a record raises.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} holds no record (*.json); {command} writes one.")
    return [_content(file, key, command) for file in files]


def _content(file: Path, key: str, command: str) -> Record:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"There is no {file}; {command} writes a record.") from error
    except ValueError:
        content = None
    if not isinstance(content, dict) or key not in content:
        raise ValueError(f"{file} is no record for this table; {command} writes one.")
    return content


def print_table(make: Callable[[], str]) -> int:
    """Print what `make` gives and return 0, or its ValueError on stderr and return 2."""
    try:
        print(make())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
