"""What the native engine asks of its process: threads, memory, and to be where it was made."""

import os
import resource
import select
import signal
import sys
from pathlib import Path

import pytest

from dq_lightning.runtime.native import NativeEngine
from dq_lightning.runtime.settings import GenerationSettings

BASE = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_ids": (2,), "max_length": 12}
SECONDS = 30  # for what takes less than one

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this machine")


def in_a_fork(work):
    """What `work` returns or raises in a forked process, as text; it must end by itself."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], SECONDS)
    if not ready:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert ready, f"the forked process did not end within {SECONDS} seconds"
    assert status == 0, f"the forked process ended with status {status}"
    return said


def limit_memory(more):
    """Let this process have that many bytes more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


@pytest.fixture(scope="module")
def bart(student, packed):
    return packed(student("bart"))


def test_an_engine_of_another_process(bart):
    engine, settings = NativeEngine(bart, threads=2), GenerationSettings(**BASE)
    texts = engine.generate([[5, 6]], settings)
    words = "was made before this process was forked"
    assert words in in_a_fork(lambda: engine.generate([[5, 6]], settings))
    assert words in in_a_fork(lambda: engine.logits([[5, 6]], [[1, 7]]))
    own = in_a_fork(lambda: NativeEngine(bart, threads=2).generate([[5, 6]], settings))
    assert own == str(texts) == str(engine.generate([[5, 6]], settings))


def test_an_engine_of_another_process_goes_quietly(bart):
    engines = [NativeEngine(bart, threads=2)]
    assert in_a_fork(engines.clear) == "None"


@linux
def test_more_threads_than_the_system_allows(bart):
    """The process lives on, and engine=auto has a reason to give."""

    def work():
        limit_memory(64 * 2**20)  # of 64 stacks, a few
        return NativeEngine(bart, threads=64).name

    said = in_a_fork(work)
    assert said == "ValueError: The system has no room for 64 threads; write a smaller number."


@linux
def test_memory_follows_the_text_and_not_max_length(student, packed):
    """Texts of one token; the caches of all the positions that they may reach would be 2 GB."""
    t5 = packed(student("t5"))
    own = {"max_length": 200_000, "forced_bos_token_id": 2, "num_beams": 4}

    def work():
        engine, before = NativeEngine(t5, threads=1), highest()
        texts = engine.generate([[5, 6]] * 16, GenerationSettings(**{**BASE, **own}))
        assert all(text.token_ids == [2] for text in texts)
        return highest() - before

    def highest():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert int(in_a_fork(work)) < 50_000  # KB


@linux
@pytest.mark.parametrize("threads", [1, 4])
def test_too_little_memory_is_said(student, packed, threads):
    """Not that another thread failed, which one thread or another would say first."""
    t5 = packed(student("t5"))
    settings = GenerationSettings(**{**BASE, "max_length": 3_000_000}, num_beams=4)

    def work():
        engine, said = NativeEngine(t5, threads=threads), set()
        limit_memory(300 * 2**20)
        for _ in range(100):
            with pytest.raises(ValueError) as error:
                engine.generate([[5, 6, 7]], settings)
            said.add(str(error.value))
        return " ".join(said)

    said = in_a_fork(work)
    assert said == (
        "There is not enough memory; shorter texts, fewer beams or fewer threads need less."
    )
