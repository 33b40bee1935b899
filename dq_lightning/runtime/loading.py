"""A packed student, ready to generate."""

import operator
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from transformers import PreTrainedTokenizerBase

from dq_lightning.artifacts.packed_file import read_packed
from dq_lightning.artifacts.packed_student import PackedStudent
from dq_lightning.models.family import family_named
from dq_lightning.runtime.engine import Engine, Generation
from dq_lightning.runtime.settings import GenerationSettings
from dq_lightning.runtime.texts import Texts, texts_of

EngineName = Literal["auto", "native", "torch"]


def load(
    student: str | Path | PackedStudent,
    engine: EngineName = "auto",
    threads: int | None = None,
    device: str = "cpu",
    batch_size: int = 16,
) -> "Runtime":
    """Load a packed file, or take a student that is packed in memory.

    engine: native: compiled kernels on the CPU; torch: anywhere; auto: native where it can run
    this student, else torch, with the reason on stderr. threads: None: native: all cores, torch:
    as torch has them set. batch_size: sources that torch generates together. Raises ValueError
    with one sentence for a file that is missing, damaged or of another version, and for an engine
    that cannot run the student.
    """
    if engine not in get_args(EngineName):
        raise ValueError(f"engine={engine!r} is unknown; write auto, native or torch.")
    if threads is not None and threads < 1:
        raise ValueError(f"threads={threads} cannot be; write 1 or more.")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} cannot be; write 1 or more.")
    if engine == "native" and device != "cpu":
        raise ValueError(f"engine=native runs on the CPU alone; write engine=torch with {device=}.")
    if isinstance(student, (str, Path)):
        student = read_packed(Path(student))
    running = _native(student, engine, threads) if device == "cpu" else None
    if running is not None:
        return Runtime(student, "native", running)
    from dq_lightning.runtime.engine_torch import TorchEngine

    return Runtime(student, "torch", TorchEngine(student, device, threads, batch_size))


class Runtime:
    """A loaded student: texts in, texts out."""

    def __init__(self, student: PackedStudent, engine_name: str, engine: Engine) -> None:
        self.student = student
        self.engine_name = engine_name
        self.engine = engine

    @property
    def resident_bytes(self) -> int:
        """Bytes of the weights in memory."""
        return self.engine.resident_bytes

    @cached_property
    def texts(self) -> Texts:
        """The student's tokenizer, source length and prefix."""
        texts = texts_of(self.student)
        limits = [limit for limit in (texts.max_source_length, self._positions) if limit]
        return replace(texts, max_source_length=min(limits, default=None))

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The student's tokenizer."""
        return self.texts.tokenizer

    def settings(self, **overrides: Any) -> GenerationSettings:
        """The student's stored generation settings with these over them, by Hugging Face's names.

        Raises ValueError for a setting that is unknown, unsupported or out of bounds.
        """
        settings = GenerationSettings.of(self.student.generation, **overrides)
        positions = self._positions
        if positions is not None and settings.max_length > positions + 1:
            raise ValueError(
                f"max_length={settings.max_length} (start token included) is more than the "
                f"student's {positions} positions; write max_length={positions + 1} or less."
            )
        return settings

    def generate(self, texts: Sequence[str], **settings: Any) -> list[str]:
        """One text for each text (`num_return_sequences` for each), in order.

        A source that is longer than the student's max_source_length loses its end.
        """
        if isinstance(texts, str):
            raise ValueError("generate takes a list of texts; write generate([text]) for one.")
        chosen = self.settings(**settings)
        sources = [source.token_ids for source in self.texts.encode(texts)]
        return self.texts.decode([g.token_ids for g in self._generations(sources, chosen, False)])

    def generate_ids(
        self, sources: Iterable[Iterable[int]], *, scores: bool = True, **settings: Any
    ) -> list[Generation]:
        """The same from and to token ids; a source has its special tokens and no padding.

        sources: lists, arrays or tensors of integers. scores=False: those of beams may be left
        out, which saves memory on the torch engine.
        """
        listed = [_token_ids(place, source) for place, source in enumerate(_listed(sources))]
        return self._generations(listed, self.settings(**settings), scores)

    def _generations(
        self, sources: Sequence[Sequence[int]], settings: GenerationSettings, scores: bool
    ) -> list[Generation]:
        chosen = replace(settings, output_scores=scores)
        for place, source in enumerate(sources):
            self._check(place, source)
        return self.engine.generate(sources, chosen) if sources else []

    @cached_property
    def _positions(self) -> int | None:
        """Rows of the student's table of positions; None where it has no such table."""
        has_table = "*.embed_positions" in family_named(self.student.family).keep_embeddings
        return self.student.config["max_position_embeddings"] if has_table else None

    def _check(self, place: int, source: Sequence[int]) -> None:
        vocabulary = self.student.config["vocab_size"]
        if not source:
            raise ValueError(f"sources[{place}] is empty; give at least its end token.")
        strange = [token for token in source if not 0 <= token < vocabulary]
        if strange:
            raise ValueError(
                f"sources[{place}] has the token id {strange[0]}; the student's go from 0 to "
                f"{vocabulary - 1}."
            )
        if self._positions is not None and len(source) > self._positions:
            raise ValueError(
                f"sources[{place}] has {len(source)} tokens; the student has {self._positions} "
                "positions."
            )


def _listed(values: Any) -> Any:
    """An array or a tensor as lists; anything else as it is."""
    return values.tolist() if hasattr(values, "tolist") else values


def _token_ids(place: int, source: Any) -> list[int]:
    try:
        return [operator.index(token) for token in _listed(source)]
    except TypeError:
        raise ValueError(f"sources[{place}] cannot be; write a list of integers.") from None


def _native(student: PackedStudent, engine: EngineName, threads: int | None) -> Engine | None:
    """The native engine; None where it was not asked for or, with a reason, cannot run."""
    if engine == "torch":
        return None
    from dq_lightning.runtime.build import NativeBuildError
    from dq_lightning.runtime.native import NativeEngine

    try:
        return NativeEngine(student, threads=threads)
    except (NativeBuildError, ValueError) as error:
        if engine == "native":
            raise ValueError(str(error)) from error
        print(f"The torch engine runs this student: {error}", file=sys.stderr)
        return None
