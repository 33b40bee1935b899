"""Lines of a stream as documents, and documents with their texts as lines again."""

import contextlib
import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

LONGEST_LINE = 2**24
"""Bytes of a line and its end; a longer one is an error, so that memory stays bounded."""

_PATIENCE = 0.05  # seconds that an unfilled window waits for the next line
_Item = tuple[int, bytes] | BaseException | None
_Queue = queue.Queue[_Item]


@dataclass
class Document:
    """One line of the input.

    number: of the line, from 1. size: its bytes. text: what to generate from; None for a line
    without one. fields: the other fields of a JSON line. error: what is wrong with the line.
    """

    number: int
    size: int
    text: str | None = None
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    error: str | None = None


@dataclass(frozen=True)
class LineFormat:
    """Plain lines of text, or JSON Lines whose objects have the text in `field`."""

    jsonl: bool = False
    field: str = "text"

    def read(self, number: int, line: bytes) -> Document:
        """A document; a wrong line has an error in place of its text."""
        document = Document(number, len(line))
        try:
            if len(line) > LONGEST_LINE:
                raise ValueError(f"longer than {LONGEST_LINE} bytes")
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            if text.strip() and self.jsonl:
                self._read_json(document, text)
            elif text.strip():
                document.text = text
        except UnicodeError as error:
            document.error = f"no UTF-8 ({error})"
        except (ValueError, RecursionError) as error:
            document.error = str(error)
        return document

    def _read_json(self, document: Document, line: str) -> None:
        try:
            row: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"invalid JSON ({error.msg} at column {error.colno})") from error
        if not isinstance(row, dict):
            raise ValueError(f"a JSON {type(row).__name__}, not an object")
        document.fields = {str(name): value for name, value in row.items() if name != self.field}
        if not isinstance(row.get(self.field), str):
            missing = "no field" if self.field not in row else "no text in the field"
            raise ValueError(f"{missing} {self.field!r}; name another with --field")
        row[self.field].encode()  # JSON can say half a character, \ud800, which is no text
        document.text = row[self.field]

    def write(self, document: Document, texts: list[str]) -> str:
        """The line that answers a document; an empty line for one without a text."""
        if not self.jsonl:
            return " ".join(" ".join(texts).split()) + "\n"
        if document.error is not None:
            answer = {"error": f"line {document.number}: {document.error}"}
        elif document.text is None:
            return "\n"
        else:
            answer = {"generated": texts[0] if len(texts) == 1 else texts}
        row = {**document.fields, **answer}
        line = json.dumps(row, ensure_ascii=False)
        halves = any("\ud800" <= character <= "\udfff" for character in line)
        return (json.dumps(row) if halves else line) + "\n"


def windows(stream: IO[bytes], form: LineFormat, size: int) -> Iterator[list[Document]]:
    """Lists of at most `size` documents: those that have arrived, at least one.

    A thread reads ahead, at most `size` lines: so a slow writer gets its answers at once, and a
    quick one fills whole windows, whose documents are then sorted by length.
    """
    arrived: _Queue = queue.Queue(size)

    def read() -> None:
        end: BaseException | None = None
        try:
            for numbered in enumerate(_lines(stream), start=1):
                arrived.put(numbered)
        except BaseException as error:  # belongs to the thread that waits for lines
            end = error
        arrived.put(end)

    threading.Thread(target=read, daemon=True).start()
    while True:
        items = _next(arrived, size)
        window = [form.read(*item) for item in items if isinstance(item, tuple)]
        if window:
            yield window
        if isinstance(items[-1], BaseException):
            raise items[-1]
        if items[-1] is None:
            return


def _next(arrived: _Queue, size: int) -> list[_Item]:
    items = [arrived.get()]
    with contextlib.suppress(queue.Empty):
        while len(items) < size and isinstance(items[-1], tuple):
            items.append(arrived.get(timeout=_PATIENCE))
    return items


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines, of those that are too long as much as shows it."""
    while line := stream.readline(LONGEST_LINE + 1):
        yield line
        while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            line = stream.readline(LONGEST_LINE + 1)
