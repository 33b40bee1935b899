"""Atomic writing: a reader finds the old content or the new, never a part of either."""

import contextlib
import dataclasses
import json
import math
import os
import secrets
import shutil
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any


def write_file(target: Path, chunks: Iterable[str | bytes]) -> Path:
    """Writes bytes or UTF-8 text to a temporary sibling, syncs it and renames it over ``target``.

    If ``chunks`` raises or the disk is full, ``target`` stays as it was and the temporary goes. A
    link stays one: the file that it names is replaced. Into a pipe or a device such as /dev/null
    the chunks are written as they come.
    """
    content = (c.encode("utf-8") if isinstance(c, str) else c for c in chunks)
    if target.is_fifo() or target.is_char_device():
        with target.open("wb") as stream:
            stream.writelines(content)
        return target
    file = target.resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(file)
    try:
        with temporary.open("xb") as stream:
            stream.writelines(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(file.parent)
    return target


@contextlib.contextmanager
def replace_directory(target: Path) -> Generator[Path, None, None]:
    """Yields an empty temporary sibling that is renamed to ``target`` when the block ends well.

    An older ``target`` is kept until the new one is complete, and put back if the swap fails. What
    a killed writer left behind goes first, so two writers must not share a ``target``.
    """
    old = target.with_name(f".{target.name}.old")
    target.parent.mkdir(parents=True, exist_ok=True)
    _restore(old, target)
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = _temporary(target)
    temporary.mkdir()
    try:
        yield temporary
        _sync_tree(temporary)
        if target.exists():
            target.rename(old)
        temporary.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _restore(old, target)


def strict_json(content: Any, indent: int | None = None) -> str:
    """JSON text that every parser reads; numpy and torch scalars, paths and dataclasses pass."""
    return json.dumps(_strict(content), indent=indent, ensure_ascii=False, allow_nan=False)


def _strict(value: Any) -> Any:
    """The value as plain JSON types; NaN and infinities, which JSON cannot say, become None."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=str) if isinstance(value, (set, frozenset)) else value
        return [_strict(item) for item in items]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _strict(dataclasses.asdict(value))
    if isinstance(value, Path):
        return str(value)
    item = getattr(value, "item", None)  # numpy and torch scalars
    if callable(item) and getattr(value, "ndim", None) == 0:
        return _strict(item())
    return value


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def _restore(old: Path, target: Path) -> None:
    """Ends an interrupted swap: the old folder returns if the new one is missing, else it goes."""
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as stream:
                os.fsync(stream.fileno())
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            _sync(path)


def _sync(folder: Path) -> None:
    """Makes a rename in ``folder`` durable where the system can (Windows cannot open folders)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
