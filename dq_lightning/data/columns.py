"""Which columns of a table are source, target and references, and rows checked against that."""

import atexit
import difflib
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from dq_lightning.data.source import FEATURES

Row = Mapping[str, Any]
PlacedRows = Iterable[tuple[str, Row]]
"""Rows with their place for messages: ("line 3", {...})."""

_CHUNK = 1000  # rows held as Python objects at a time


class _EmptyTextError(ValueError):
    """The row has no source or no target."""


@dataclass(frozen=True)
class Columns:
    """Column names; `translation.en` reaches into a nested column.

    source: one column, or several whose texts are joined by `separator` (question and context).
    target: one column, or several (each one reference); a value may be a list of references.
    references: columns that replace the target in validation and test rows where they are filled.
    drop_empty: leave out rows without source or target, with one warning, instead of raising.
    """

    source: str | Sequence[str] = "source"
    target: str | Sequence[str] = "target"
    references: str | Sequence[str] | None = None
    separator: str = "\n"
    drop_empty: bool = False

    def identity(self) -> str:
        """The settings as text that is equal exactly when they are."""
        names = [_names(self.source), _names(self.target), _names(self.references)]
        return repr((names, self.separator, self.drop_empty))

    def read(self, tables: Mapping[str, tuple[str, PlacedRows]]) -> dict[str, Dataset]:
        """Split name → (name for messages, rows) as checked datasets, streamed through disk."""
        readers = {
            name: _Reader(self, name != "train", where) for name, (where, _) in tables.items()
        }
        splits = {
            name: _stream(readers[name].pairs(rows), readers[name].where)
            for name, (_, rows) in tables.items()
        }
        evaluated = [reader for reader in readers.values() if reader.evaluation]
        if self.references and evaluated and not any(r.saw_references for r in evaluated):
            first = evaluated[0]
            raise ValueError(
                _no_column(
                    "references", ", ".join(_names(self.references)), first.columns, first.where
                )
            )
        for reader in readers.values():
            if reader.dropped:
                warnings.warn(
                    f"{reader.where}: {reader.dropped} rows without source or target "
                    "left out (data.drop_empty=true)",
                    stacklevel=2,
                )
        return splits


@dataclass
class _Reader:
    """Reads the rows of one split and remembers what it met."""

    names: Columns
    evaluation: bool
    where: str
    saw_references: bool = False
    dropped: int = 0
    columns: list[str] = field(default_factory=list)

    def pairs(self, rows: PlacedRows) -> Iterator[tuple[str, list[str]]]:
        for place, row in rows:
            self.columns = self.columns or _columns_of(row)
            at = f"{self.where}, {place}"
            try:
                yield self._source(row, at), self._references(row, at)
            except _EmptyTextError:
                if not self.names.drop_empty:
                    raise
                self.dropped += 1

    def _source(self, row: Row, at: str) -> str:
        columns = _names(self.names.source)
        texts = [_text(_value(row, c, "source", at), c, at) for c in columns]
        text = self.names.separator.join(t for t in texts if t.strip())
        if not text:
            raise _EmptyTextError(
                f"{at}: the source ({', '.join(columns)}) is empty; fill it, drop the row or set "
                "data.drop_empty=true."
            )
        return text

    def _references(self, row: Row, at: str) -> list[str]:
        found = self._filled_references(row) if self.evaluation else {}
        columns = found or {c: _value(row, c, "target", at) for c in _names(self.names.target)}
        texts = [
            _text(value, column, at)
            for column, values in columns.items()
            for value in (values if isinstance(values, list) else [values])
        ]
        filled = [text for text in texts if text.strip()]
        if not filled or (len(filled) < len(texts) and not self.names.drop_empty):
            raise _EmptyTextError(
                f"{at}: the target ({', '.join(columns)}) is empty; fill it, drop the row or set "
                "data.drop_empty=true."
            )
        return filled

    def _filled_references(self, row: Row) -> dict[str, Any]:
        present = {c: _find(row, c) for c in _names(self.names.references)}
        filled = {c: value for c, value in present.items() if value is not None}
        self.saw_references |= bool(filled)
        return filled


def _names(columns: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if columns is None else (columns,) if isinstance(columns, str) else tuple(columns)


def _find(row: Row, column: str) -> Any:
    """The value of a possibly dotted column; None where there is none."""
    if column in row:
        return row[column]
    head, _, rest = column.partition(".")
    inner = row.get(head)
    return _find(inner, rest) if rest and isinstance(inner, Mapping) else None


def _value(row: Row, column: str, role: str, at: str) -> Any:
    value = _find(row, column)
    if value is None or isinstance(value, Mapping):
        known = _columns_of(row)
        if column not in known:
            raise ValueError(_no_column(role, column, known, at))
    return value


def _columns_of(row: Row) -> list[str]:
    """All column names, nested ones dotted."""
    return [
        name
        for key, value in row.items()
        for name in (
            [f"{key}.{c}" for c in _columns_of(value)] if isinstance(value, Mapping) else [str(key)]
        )
    ]


def _no_column(role: str, column: str, known: list[str], at: str) -> str:
    near = difflib.get_close_matches(column, known, n=1, cutoff=0.5)
    advice = f"data.{role}={near[0]}" if near else f"data.{role}=<one of them>"
    return f"{at}: no column {column!r}; the columns are {', '.join(known)}: write {advice}."


def _text(value: Any, column: str, at: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(
            f"{at}: column {column!r} holds {str(value)[:40]!r} ({type(value).__name__}), not "
            "text; write a string there or name another column."
        )
    return value


def _stream(pairs: Iterator[tuple[str, list[str]]], where: str) -> Dataset:
    """Pairs as a memory-mapped dataset, so that only one chunk of rows is in memory."""
    path = Path(tempfile.mkdtemp(prefix="dq_lightning_")) / "rows.arrow"
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    schema: pa.Schema = FEATURES.arrow_schema
    num_rows = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        while chunk := list(islice(pairs, _CHUNK)):
            num_rows += len(chunk)
            columns = {"source": [s for s, _ in chunk], "references": [r for _, r in chunk]}
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=schema))
    if not num_rows:
        raise ValueError(f"{where} holds no rows; give a file or split with at least one pair.")
    return Dataset.from_file(str(path))
