"""Shards survive a kill, and what is not whole is never read."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import FileLock

from dq_lightning.artifacts import shards
from dq_lightning.artifacts.shards import texts_in_shards

IDENTITY = ["weights", {"num_beams": 5}, None]
KILLED = """
import os, signal, sys
from pathlib import Path
from dq_lightning.artifacts import atomic, shards
def write(start, stop):
    if start == 4 and sys.argv[2] == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
    return [f"text {row}" for row in range(start, stop)]
def killed(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "saving":
    replace = os.replace
    os.replace = lambda a, b: killed() if str(b).endswith("000002.json") else replace(a, b)
shards.texts_in_shards(Path(sys.argv[1]), ["weights", {"num_beams": 5}, None], 9, 2, write)
"""


@pytest.fixture
def asked():
    return []


@pytest.fixture
def write(asked):
    def write(start, stop):
        asked.append((start, stop))
        return [f"text {row}" for row in range(start, stop)]

    return write


EXPECTED = [f"text {row}" for row in range(9)]


def test_every_text_in_order_and_only_once(tmp_path, write, asked, capsys):
    assert texts_in_shards(tmp_path, IDENTITY, 9, 2, write) == EXPECTED
    assert asked == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]
    assert "Teacher's targets: 9 of 9  left 0:00" in capsys.readouterr().out
    assert texts_in_shards(tmp_path, IDENTITY, 9, 2, write) == EXPECTED
    assert len(asked) == 5


def test_who_comes_second_says_that_it_waits(tmp_path, write, monkeypatch):
    texts_in_shards(tmp_path, IDENTITY, 9, 2, write)
    (folder,) = tmp_path.iterdir()
    said, waits = [], threading.Event()

    def say(text, flush):  # not through capsys, which two threads must not use at once
        said.append(text)
        waits.set()

    monkeypatch.setattr(shards, "print", say, raising=False)
    with ThreadPoolExecutor(1) as threads:
        with FileLock(folder / "lock"):
            second = threads.submit(texts_in_shards, tmp_path, IDENTITY, 9, 2, write)
            assert waits.wait(60) and not second.done()
        assert second.result(60) == EXPECTED
    assert said == ["Another run writes the teacher's targets: waiting for it"]
    texts_in_shards(tmp_path, IDENTITY, 9, 2, write)
    assert len(said) == 1


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, 5), (3600.0, 1)])
def test_how_far_it_is_is_said_now_and_then_and_at_the_end(tmp_path, write, capsys, seconds, lines):
    texts_in_shards(tmp_path, IDENTITY, 9, 2, write, seconds)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == lines
    assert said[-1] == "Teacher's targets: 9 of 9  left 0:00"


@pytest.mark.parametrize("moment", ["writing", "saving"])
def test_a_killed_process_keeps_its_finished_shards(tmp_path, write, asked, moment):
    """Killed with SIGKILL while it makes the third shard, or before that file has its name."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), moment], check=False)
    assert done.returncode == -signal.SIGKILL
    assert texts_in_shards(tmp_path, IDENTITY, 9, 2, write) == EXPECTED
    assert asked == [(4, 6), (6, 8), (8, 9)]


@pytest.mark.parametrize("content", ["", '["text 2", "te', '["text 2"]', '["text 2", 3]', "{}"])
def test_what_is_not_whole_is_made_anew(tmp_path, write, asked, content):
    texts_in_shards(tmp_path, IDENTITY, 9, 2, write)
    (file,) = tmp_path.glob("*/000001.json")
    file.write_text(content)
    asked.clear()
    assert texts_in_shards(tmp_path, IDENTITY, 9, 2, write) == EXPECTED
    assert asked == [(2, 4)]
    assert json.loads(file.read_text()) == EXPECTED[2:4]


@pytest.mark.parametrize(
    ("identity", "count", "size"), [(["other"], 9, 2), (IDENTITY, 8, 2), (IDENTITY, 9, 3)]
)
def test_another_question_has_other_shards(tmp_path, write, asked, identity, count, size):
    texts_in_shards(tmp_path, IDENTITY, 9, 2, write)
    asked.clear()
    assert texts_in_shards(tmp_path, identity, count, size, write) == EXPECTED[:count]
    assert asked[-1][1] == count and asked[0][0] == 0


def test_a_write_that_raises_leaves_the_shards_before_it(tmp_path, write, asked):
    def failing(start, stop):
        if start == 4:
            raise MemoryError
        return write(start, stop)

    with pytest.raises(MemoryError):
        texts_in_shards(tmp_path, IDENTITY, 9, 2, failing)
    asked.clear()
    assert texts_in_shards(tmp_path, IDENTITY, 9, 2, write) == EXPECTED
    assert asked == [(4, 6), (6, 8), (8, 9)]
    assert not [name for name in os.listdir(next(tmp_path.iterdir())) if name.endswith(".tmp")]
