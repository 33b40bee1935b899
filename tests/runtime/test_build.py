"""The native library: built once, by whoever comes first, or one sentence that says why not."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dq_lightning.runtime import build
from dq_lightning.runtime.build import NativeBuildError, instruction_set, native_library

ANSWER = 'extern "C" int answer() { return %d; }\n'


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of one function instead of ours, and a cache of its own."""
    folder = tmp_path / "csrc"
    folder.mkdir()
    (folder / "answer.cpp").write_text(ANSWER % 41)
    monkeypatch.setattr(build, "SOURCES", folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "native_library", native_library.__wrapped__)
    return folder


def test_built_once_and_again_for_other_sources(sources: Path, monkeypatch: pytest.MonkeyPatch):
    library = build.native_library()
    assert library.answer() == 41
    with monkeypatch.context() as context:
        context.setattr(build, "_build", None)
        assert build.native_library().answer() == 41
    (sources / "answer.cpp").write_text(ANSWER % 42)
    assert build.native_library().answer() == 42
    left = {path.suffix for path in build._cache_folder().iterdir()}
    assert left == {".so", ".lock"}


def test_two_processes_build_at_once(sources: Path):
    code = (
        "import pathlib, sys\n"
        "from dq_lightning.runtime import build\n"
        "build.SOURCES = pathlib.Path(sys.argv[1])\n"
        "print(build.native_library().answer())\n"
    )
    command = [sys.executable, "-c", code, str(sources)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0] for process in processes] == ["41\n", "41\n"]
    assert len(list(build._cache_folder().glob("*.so"))) == 1


def test_a_build_that_was_killed_does_not_block_the_next(sources: Path):
    folder = build._cache_folder()
    (folder / "tmpabandoned").mkdir(parents=True)
    (folder / "tmpabandoned" / "lock").touch()  # torch's own lock file
    assert build.native_library().answer() == 41


def test_no_compiler(sources: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NativeBuildError, match="there is no 'no-such-compiler' here; install g"):
        build.native_library()


def test_a_compiler_behind_another_command(sources: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "env c++")
    assert build.native_library().answer() == 41
    assert os.environ["CXX"] == "env c++"


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(NativeBuildError, match="this user has no home; set XDG_CACHE_HOME to a"):
        native_library.__wrapped__()


def test_a_build_that_fails(sources: Path):
    (sources / "answer.cpp").write_text("int answer( { }\n")
    with pytest.raises(
        NativeBuildError, match=r"could not be built: .*answer\.cpp:1.*error"
    ) as info:
        build.native_library()
    assert "\n" not in str(info.value)
    assert not list(build._cache_folder().glob("*.so"))


def test_no_ninja(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compiler = shutil.which("c++")
    assert compiler is not None
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(NativeBuildError, match="Ninja is required"):
        build.native_library()
    assert os.environ["PATH"] == str(tmp_path)


def test_a_cache_that_cannot_be_written(sources: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(NativeBuildError, match="set XDG_CACHE_HOME to a folder"):
        build.native_library()


def test_the_instruction_set_is_chosen_or_refused(monkeypatch: pytest.MonkeyPatch):
    library = native_library()
    monkeypatch.delenv(build.ISA_VARIABLE, raising=False)
    assert instruction_set(library) in build.INSTRUCTION_SETS
    monkeypatch.setenv(build.ISA_VARIABLE, "portable")
    assert instruction_set(library) == "portable"
    monkeypatch.setenv(build.ISA_VARIABLE, "sse9")
    with pytest.raises(ValueError, match=r"ISA=sse9 is unknown; write one of .*portable"):
        instruction_set(library)


def test_what_the_machine_cannot_run_is_refused():
    class OldMachine:
        @staticmethod
        def dq_ops(name: bytes) -> bool:
            return name == b"portable"

    OldMachine.dq_ops.argtypes = OldMachine.dq_ops.restype = ctypes.c_void_p
    with pytest.raises(
        ValueError, match="avx2 does not run on this machine; write one of portable"
    ):
        instruction_set(OldMachine, "avx2")  # type: ignore[arg-type]


def test_a_library_that_cannot_be_loaded(sources: Path):
    library = build._cache_folder() / f"native-{build._version()}.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"not a library")
    with pytest.raises(NativeBuildError, match=r"cannot be loaded .*; delete it"):
        build.native_library()
