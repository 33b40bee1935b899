"""Local files: JSON Lines (plain, gzip or xz), CSV and Parquet."""

import csv
import gzip
import hashlib
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from dq_lightning.data.columns import Columns, PlacedRows
from dq_lightning.data.source import DataSource, file_digest

_UNREADABLE = (
    OSError,
    EOFError,
    lzma.LZMAError,
    zlib.error,
    UnicodeError,
    csv.Error,
    pa.ArrowException,
)
Reader = Callable[[Path], Iterator[tuple[str, dict[str, Any]]]]


class Files(DataSource):
    """One file a split, each with the same columns.

    train, validation, test: paths, relative to the working directory or from `~`; None leaves the
    split out. The suffix says the format: .jsonl, .jsonl.gz, .jsonl.xz, .csv (comma, header line,
    UTF-8) or .parquet.
    """

    def __init__(
        self,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        columns: Columns | None = None,
    ) -> None:
        given = {"train": train, "validation": validation, "test": test}
        self.columns = columns or Columns()
        self.paths = {name: Path(path).expanduser() for name, path in given.items() if path}
        if not self.paths:
            raise ValueError(
                "no data file is named; write data.train=<file> and, to evaluate, "
                "data.validation=<file> data.test=<file>."
            )
        for name, path in self.paths.items():
            _check_file(name, path)

    def fingerprint(self) -> str:
        try:
            digests = {name: file_digest(path) for name, path in self.paths.items()}
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read: {error.strerror}.") from error
        suffixes = [path.suffixes[-2:] for path in self.paths.values()]
        identity = repr((digests, suffixes, self.columns.identity()))
        return f"files-1-{hashlib.sha256(identity.encode()).hexdigest()}"

    def splits(self) -> dict[str, Dataset]:
        return self.columns.read(
            {
                name: (f"data.{name}={path}", _rows(path, f"data.{name}={path}"))
                for name, path in self.paths.items()
            }
        )


def _check_file(name: str, path: Path) -> None:
    if not path.is_file():
        wrong = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise ValueError(
            f"data.{name}={path} {wrong} (looked in {Path.cwd()}); write the path of a "
            f"{', '.join(READERS)} file."
        )
    if _reader(path) is None:
        raise ValueError(
            f"data.{name}={path} has no known suffix; give a file that ends in one of "
            f"{', '.join(READERS)}."
        )
    if path.stat().st_size == 0:
        raise ValueError(f"data.{name}={path} is empty; give a file with at least one row.")


def _reader(path: Path) -> Reader | None:
    return next((read for end, read in READERS.items() if path.name.lower().endswith(end)), None)


def _rows(path: Path, where: str) -> PlacedRows:
    reader = _reader(path)
    assert reader is not None  # checked by the constructor
    place = "the start"
    try:
        for place, row in reader(path):
            yield place, row
    except _UNREADABLE as error:
        raise ValueError(
            f"{where} cannot be read past {place}: {str(error) or type(error).__name__}; the file "
            "is damaged or not of the format its suffix says, write it anew."
        ) from error
    except _BadRowError as error:
        raise ValueError(f"{where}, {error}") from error


class _BadRowError(Exception):
    """A place and what is wrong there."""


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix.lower(), open)
    with opener(path, "rt", encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"line {number}", _json_object(line, f"line {number}")


def _json_object(line: str, place: str) -> dict[str, Any]:
    wanted = 'write one object a line, such as {"source": "...", "target": "..."}.'
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise _BadRowError(
            f"{place}: invalid JSON ({error.msg} at column {error.colno}); {wanted}"
        ) from error
    if not isinstance(row, dict):
        raise _BadRowError(f"{place}: a JSON {type(row).__name__}, not an object; {wanted}")
    return row


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(2**31 - 1)  # the default stops at 131,072 characters, a long document
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        header = next(rows, [])
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise _BadRowError(
                    f"line {rows.line_num}: {len(row)} fields where the header has {len(header)}; "
                    "put texts with commas or line breaks in double quotes."
                )
            yield f"line {rows.line_num}", dict(zip(header, row, strict=True))


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row


READERS: dict[str, Reader] = {
    ".jsonl": _json_lines,
    ".jsonl.gz": _json_lines,
    ".jsonl.xz": _json_lines,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
