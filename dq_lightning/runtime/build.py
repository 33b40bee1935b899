"""The native kernels and engine: built with the machine's own compiler at first use."""

import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock
from torch.utils import cpp_extension

SOURCES = Path(__file__).parent / "csrc"
ISA_VARIABLE = "DQ_LIGHTNING_ISA"
INSTRUCTION_SETS = ("avx512", "avxvnni", "avx2", "portable")
"""Best first. One build has all of them: the library asks the machine which it can run."""

# Rounding is part of the result: no -ffast-math, and a * b + c becomes one operation only where
# the kernels say so. -Wno-psabi: vectors never leave a compiled file.
FLAGS = ("-O3", "-std=c++17", "-pthread", "-ffp-contract=off", "-Wno-psabi")


class NativeBuildError(RuntimeError):
    """The native library cannot be built here; the message says why in one sentence."""


@functools.cache
def native_library() -> ctypes.CDLL:
    """Load the library, after building it where this version of it was not built before.

    It is kept in the user's cache folder, under a hash of the sources. Raises NativeBuildError
    without a compiler, or where it fails.
    """
    path = _built(_cache_folder())
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeBuildError(f"{path} cannot be loaded ({error}); delete it.") from error


def instruction_set(library: ctypes.CDLL, name: str | None = None) -> str:
    """Name the kernels to use: `name`, or what DQ_LIGHTNING_ISA says, or the machine's best.

    Raises ValueError for one that does not exist or that this machine cannot run.
    """
    wanted = name or os.environ.get(ISA_VARIABLE) or None
    ops = library.dq_ops
    ops.argtypes, ops.restype = [ctypes.c_char_p], ctypes.c_void_p
    can_run = [known for known in INSTRUCTION_SETS if ops(known.encode())]
    if wanted is None:
        return can_run[0]
    if wanted not in can_run:
        problem = "is unknown" if wanted not in INSTRUCTION_SETS else "does not run on this machine"
        raise ValueError(f"{ISA_VARIABLE}={wanted} {problem}; write one of {', '.join(can_run)}.")
    return wanted


def _cache_folder() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given or Path.home() / ".cache") / "dq_lightning"
    except RuntimeError as error:  # neither HOME nor an entry in the password database
        raise NativeBuildError(
            "The native engine has no folder to be kept in, because this user has no home; "
            "set XDG_CACHE_HOME to a folder that can be written."
        ) from error


def _version() -> str:
    digest = hashlib.sha256(repr((FLAGS, platform.machine(), torch.__version__)).encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _built(cache: Path) -> Path:
    library = cache / f"native-{_version()}.so"
    if library.exists():
        return library
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(library.with_suffix(".lock")):  # the second of two processes finds it built
            if not library.exists():
                _build(library)
    except OSError as error:
        raise NativeBuildError(
            f"The native engine cannot be kept in {cache} ({error.strerror or error}); "
            "set XDG_CACHE_HOME to a folder that can be written."
        ) from error
    return library


def _build(library: Path) -> None:
    given = cpp_extension.get_cxx_compiler()
    compiler = [given] if shutil.which(given) else shlex.split(given) or [given]  # "ccache g++"
    if shutil.which(compiler[0]) is None:
        raise NativeBuildError(
            f"The native engine needs a C++ compiler, and there is no '{compiler[0]}' here; "
            "install g++, or set CXX."
        )
    # A folder of its own: torch's lock file, left behind by a killed build, would block forever.
    with tempfile.TemporaryDirectory(dir=library.parent) as folder, _tools(folder, compiler):
        try:
            built = cpp_extension.load(
                name="dq_lightning_native",
                sources=[str(path) for path in sorted(SOURCES.glob("*.cpp"))],
                extra_cflags=list(FLAGS),
                extra_ldflags=["-pthread"],
                build_directory=folder,
                is_python_module=False,
            )
        except RuntimeError as error:
            raise NativeBuildError(
                f"The native engine could not be built: {_first_error(str(error))}"
            ) from error
        os.replace(str(built), library)


def _first_error(output: str) -> str:
    line = re.search(r"^.*\berror: .*$|^.*Ninja is required.*$", output, re.MULTILINE)
    return " ".join((line[0] if line else output).split())[:300]


@contextmanager
def _tools(folder: str, compiler: list[str]) -> Generator[None, None, None]:
    """Let torch find what it builds with.

    The ninja that was installed beside this Python, whether its folder is active or not; a
    compiler of several words as one program, since some versions of torch quote the whole of CXX.
    """
    before = dict(os.environ)
    path = (os.environ.get("PATH", ""), str(Path(sys.executable).parent))
    os.environ["PATH"] = os.pathsep.join(path)
    if len(compiler) > 1:
        program = Path(folder, "compiler")
        program.write_text(f'#!/bin/sh\nexec {shlex.join(compiler)} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
        os.environ["CXX"] = str(program)
    try:
        yield
    finally:
        for name in ("PATH", "CXX"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]
