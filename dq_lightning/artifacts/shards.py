"""A long computation in shards, each on disk as soon as it is done."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dq_lightning.artifacts.atomic import strict_json, write_file


def texts_in_shards(
    cache: Path,
    identity: Sequence[Any],
    count: int,
    size: int,
    write: Callable[[int, int], list[str]],
    seconds: float = 10.0,
) -> list[str]:
    """`count` texts, `size` a file below `cache`; write(start, stop) makes those of one file.

    identity: JSON values that decide the texts. Files that are there are not made again, so a
    killed process loses one shard at most; each appears whole or not at all, and one that cannot be
    read whole is made anew. Processes side by side wait for the one that writes. seconds: from one
    line that says how far it is to the next.
    """
    key = hashlib.sha256(json.dumps([*identity, count, size], sort_keys=True).encode()).hexdigest()
    folder = cache / key[:24]
    folder.mkdir(parents=True, exist_ok=True)
    texts: list[str] = []
    lock = FileLock(folder / "lock")
    if _is_held(lock):
        print("Another run writes the teacher's targets: waiting for it", flush=True)
    with lock:
        began = said = time.monotonic()
        made = 0
        for start in range(0, count, size):
            stop = min(start + size, count)
            file = folder / f"{start // size:06d}.json"
            shard = _read(file, stop - start)
            if shard is None:
                shard = write(start, stop)
                assert len(shard) == stop - start
                write_file(file, [strict_json(shard)])
                made += len(shard)
                now = time.monotonic()
                if stop == count or now - said >= seconds:
                    said, left = now, _clock((now - began) / made * (count - stop))
                    print(f"Teacher's targets: {stop:,} of {count:,}  left {left}", flush=True)
            texts += shard
    return texts


def _is_held(lock: FileLock) -> bool:
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _read(file: Path, length: int) -> list[str] | None:
    """The shard, or None where there is none of that length."""
    try:
        shard = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(shard, list) and len(shard) == length  # pyright: ignore
    return shard if whole and all(isinstance(text, str) for text in shard) else None  # pyright: ignore
