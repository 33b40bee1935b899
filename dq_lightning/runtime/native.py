"""The native engine: C++ (csrc/) behind a C interface, on packed weights."""

import ctypes
import os
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dq_lightning.artifacts.packed_matrix import PackedMatrix
from dq_lightning.artifacts.packed_student import PackedStudent
from dq_lightning.runtime.build import instruction_set, native_library
from dq_lightning.runtime.engine import Generation
from dq_lightning.runtime.native_parts import Parts, native_parts
from dq_lightning.runtime.settings import GenerationSettings

_EARLY_STOPPING = {False: 0, True: 1, "never": 2}


class _Settings(ctypes.Structure):
    """csrc/settings.h."""

    _fields_ = [
        ("seed", ctypes.c_int64),
        *((name, ctypes.c_double) for name in (
            "temperature", "top_p", "length_penalty", "repetition_penalty")),
        ("eos_tokens", ctypes.c_void_p),
        ("bad_tokens", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in (
            "num_eos_tokens", "num_bad_tokens", "start_token", "num_beams", "do_sample", "top_k",
            "early_stopping", "min_length", "max_length", "no_repeat_ngram_size",
            "encoder_no_repeat_ngram_size", "forced_bos_token", "forced_eos_token",
            "renormalize_logits", "num_return_sequences")),
    ]  # fmt: skip


class NativeEngine:
    """Runs a packed student whose activations are symmetric with a scale a token, or floats.

    threads: those of one call; one works on a sentence, all of them where it is the only one.
    Results depend neither on them nor on what else stands in a call. Raises UnsupportedError for a
    student that it cannot run, ValueError for threads that the system does not allow and
    NativeBuildError where the library cannot be built. A process that was forked after this must
    make an engine of its own: its threads are not forked.
    """

    # Held for __del__, which may come after the module's own names are gone.
    _getpid = staticmethod(os.getpid)

    def __init__(
        self, student: PackedStudent, threads: int | None = None, isa: str | None = None
    ) -> None:
        parts = native_parts(student)
        self._library = _declared(native_library())
        name = instruction_set(self._library, isa)
        threads = threads or torch.get_num_threads()
        self._process = self._getpid()
        packed = self._packed(parts)
        self._engine: int | None = self._library.dq_engine_new(packed, name.encode(), threads)
        if self._engine is None:
            raise ValueError(self._error())
        self.name = f"native ({name})"

    @property
    def resident_bytes(self) -> int:
        """Bytes of the weights in memory."""
        return int(self._library.dq_engine_bytes(self._engine))

    def generate(
        self, sources: Sequence[Sequence[int]], settings: GenerationSettings
    ) -> list[Generation]:
        """`num_return_sequences` results for each source, in order."""
        self._refuse_forked()
        tokens, lengths = _flat(sources)
        results = len(sources) * settings.num_return_sequences
        out = np.zeros((results, settings.max_length), np.int32)
        out_lengths, scores = np.zeros(results, np.int32), np.zeros(results, np.float32)
        own, _kept = _native_settings(settings)
        self._check(self._library.dq_generate(
            self._engine, _at(tokens), _at(lengths), len(sources), ctypes.byref(own), _at(out),
            _at(out_lengths), _at(scores),
        ))  # fmt: skip
        return [
            Generation(row[:length].tolist(), float(score) if settings.num_beams > 1 else None)
            for row, length, score in zip(out, out_lengths, scores, strict=True)
        ]

    def logits(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float32]]:
        """(target length, vocabulary) for each pair; targets are decoder inputs, start included."""
        self._refuse_forked()
        vocabulary = self._library.dq_engine_vocabulary(self._engine)
        (tokens, lengths), (target_tokens, target_lengths) = _flat(sources), _flat(targets)
        assert len(lengths) == len(target_lengths)
        out = np.zeros((int(target_lengths.sum()), vocabulary), np.float32)
        self._check(self._library.dq_logits(
            self._engine, _at(tokens), _at(lengths), _at(target_tokens), _at(target_lengths),
            len(sources), _at(out),
        ))  # fmt: skip
        return np.split(out, np.cumsum(target_lengths)[:-1])

    def __del__(self) -> None:
        # In a forked process nobody could join the threads: the memory stays until it ends.
        if getattr(self, "_engine", None) is not None and self._process == self._getpid():
            self._library.dq_engine_delete(self._engine)

    def __reduce__(self) -> NoReturn:
        """Refuse `copy` and `pickle`: two objects would free one engine."""
        raise TypeError(
            "A native engine cannot be copied or pickled; load the packed student once more."
        )

    def _refuse_forked(self) -> None:
        if self._process != self._getpid():
            raise RuntimeError(
                "The native engine was made before this process was forked, and its threads are "
                "not in it; load the student in this process."
            )

    def _packed(self, parts: Parts) -> int:
        packed: int = self._library.dq_parts_new()
        for name, matrix in parts.matrices.items():
            self._add_matrix(packed, name, matrix)
        for name, numbers in parts.numbers.items():
            self._check(self._library.dq_parts_numbers(
                packed, name.encode(), numbers.data_ptr(), ctypes.c_int64(numbers.numel())
            ))  # fmt: skip
        for name, of in parts.names.items():
            self._check(self._library.dq_parts_name(packed, name.encode(), of.encode()))
        return packed

    def _add_matrix(self, packed: int, name: str, matrix: PackedMatrix | Tensor) -> None:
        if isinstance(matrix, Tensor):
            arguments: tuple[Any, ...] = (*matrix.shape, 32, 0, None, None, False)
            fields = matrix
        else:
            rows, fields = matrix.rows, matrix.fields.contiguous()
            scale, zero_point = (_of_rows(p, rows) for p in (matrix.scale, matrix.zero_point))
            pointers = (None if p is None else p.data_ptr() for p in (scale, zero_point))
            arguments = (
                rows,
                matrix.columns,
                matrix.bits,
                matrix.lowest,
                *pointers,
                matrix.divides,
            )
        self._check(
            self._library.dq_parts_matrix(packed, name.encode(), fields.data_ptr(), *arguments)
        )

    def _check(self, result: int) -> None:
        if result < 0:
            raise ValueError(self._error())

    def _error(self) -> str:
        return self._library.dq_error().decode()


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number, text = ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p
    arguments: dict[str, list[Any]] = {
        "dq_parts_new": [],
        "dq_parts_matrix": [pointer, text, pointer, *[number] * 4, pointer, pointer, number],
        "dq_parts_numbers": [pointer, text, pointer, ctypes.c_int64],
        "dq_parts_name": [pointer, text, text],
        "dq_engine_new": [pointer, text, number],
        "dq_engine_vocabulary": [pointer],
        "dq_generate": [*[pointer] * 3, number, *[pointer] * 4],
        "dq_logits": [*[pointer] * 5, number, pointer],
    }
    for name, types in arguments.items():
        function = getattr(library, name)
        function.argtypes = types
        function.restype = pointer if name in ("dq_parts_new", "dq_engine_new") else number
    library.dq_error.restype = text
    library.dq_engine_bytes.argtypes, library.dq_engine_bytes.restype = [pointer], ctypes.c_int64
    library.dq_engine_delete.argtypes, library.dq_engine_delete.restype = [pointer], None
    return library


def _native_settings(settings: GenerationSettings) -> tuple[_Settings, list[NDArray[np.int32]]]:
    """The structure, and the arrays that it points to."""
    eos, bad = (np.array(t, np.int32) for t in (settings.eos_token_ids, settings.bad_token_ids))
    forced = (settings.forced_bos_token_id, settings.forced_eos_token_id)
    bos_token, eos_token = (-1 if token is None else token for token in forced)
    special = {
        "eos_tokens": _at(eos), "num_eos_tokens": len(eos),
        "bad_tokens": _at(bad), "num_bad_tokens": len(bad),
        "start_token": settings.decoder_start_token_id,
        "early_stopping": _EARLY_STOPPING[settings.early_stopping],
        "forced_bos_token": bos_token, "forced_eos_token": eos_token,
    }  # fmt: skip
    names = [str(name) for name, _kind in _Settings._fields_]  # pyright: ignore
    plain = {name: getattr(settings, name) for name in names if name not in special}
    return _Settings(**plain, **special), [eos, bad]


def _flat(sequences: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """All tokens behind each other, and the lengths."""
    tokens = [token for sequence in sequences for token in sequence]
    return np.array(tokens, np.int32), np.array([len(s) for s in sequences], np.int32)


def _at(array: NDArray[Any]) -> int:
    return array.ctypes.data


def _of_rows(part: Tensor | None, rows: int) -> Tensor | None:
    """One float32 a row."""
    return None if part is None else part.float().reshape(-1).expand(rows).contiguous()
