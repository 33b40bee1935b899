"""The engine that runs anywhere torch does: Hugging Face `generate` over packed weights."""

import contextlib
import threading
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from dq_lightning.artifacts.packed_student import PackedStudent
from dq_lightning.runtime.engine import Generation
from dq_lightning.runtime.packed_model import device_named, packed_model, resident_bytes
from dq_lightning.runtime.packed_modules import unpacked_once
from dq_lightning.runtime.settings import GenerationSettings

# One call at a time in the whole process: torch has one seed and one random state for all threads,
# and weights that a call unpacked go when it ends.
_CALLING = threading.Lock()


class TorchEngine:
    """Every student, on the CPU or a GPU, in float32; on the CPU the oracle of other engines.

    Matrices stay packed in the device's memory. A GPU unpacks them for each product; the CPU, where
    that would cost more than the product, once a call, whose end frees them again. Calls from
    several threads wait for each other.
    batch_size: sources that are generated together. threads: None: as torch has them set.
    """

    def __init__(
        self,
        student: PackedStudent,
        device: str = "cpu",
        threads: int | None = None,
        batch_size: int = 16,
    ) -> None:
        self.device = device_named(device)
        self.threads = threads
        self.batch_size = batch_size
        self.model: PreTrainedModel = packed_model(student, str(self.device))
        self.model.generation_config = GenerationConfig()  # all settings come with each call

    @property
    def resident_bytes(self) -> int:
        """Bytes of the weights in memory."""
        return resident_bytes(self.model)

    @torch.no_grad()
    def generate(
        self, sources: Sequence[Sequence[int]], settings: GenerationSettings
    ) -> list[Generation]:
        """`num_return_sequences` results for each source, in order.

        Samples are drawn source by source, so that neighbours do not change them.
        """
        size = 1 if settings.do_sample else self.batch_size
        longest_first = sorted(range(len(sources)), key=lambda place: -len(sources[place]))
        found: dict[int, list[Generation]] = {}
        with self._running():
            for start in range(0, len(sources), size):
                places = longest_first[start : start + size]
                generated = self._generate([sources[place] for place in places], settings)
                each = settings.num_return_sequences
                for row, place in enumerate(places):
                    found[place] = generated[row * each : (row + 1) * each]
        return [own for place in range(len(sources)) for own in found[place]]

    def _generate(
        self, sources: Sequence[Sequence[int]], settings: GenerationSettings
    ) -> list[Generation]:
        ids, mask = self._padded(sources, settings.pad_token_id)
        with _drawing(settings, self.device):
            result: Any = self.model.generate(  # pyright: ignore[reportCallIssue]
                input_ids=ids,
                attention_mask=mask,
                generation_config=_config(settings),
            )
        scores = result.sequences_scores.tolist() if _scored(settings) else None
        rows = [_trimmed(row, settings.eos_token_ids) for row in result.sequences.tolist()]
        return [
            Generation(row, None if scores is None else scores[place])
            for place, row in enumerate(rows)
        ]

    @torch.no_grad()
    def logits(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float32]]:
        """(target length, vocabulary) for each pair; targets are decoder inputs, start included."""
        found: list[NDArray[np.float32]] = []
        with self._running():
            for source, target in zip(sources, targets, strict=True):
                ids, mask = self._padded([source], 0)
                inputs = torch.tensor([target], device=self.device)
                output = self.model(input_ids=ids, attention_mask=mask, decoder_input_ids=inputs)
                found.append(output.logits[0].float().cpu().numpy())
        return found

    def _padded(self, sources: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
        longest = max(map(len, sources))
        ids = torch.tensor([[*source, *[pad] * (longest - len(source))] for source in sources])
        mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in sources])
        return ids.to(self.device), mask.to(self.device)

    @contextlib.contextmanager
    def _running(self) -> Generator[None, None, None]:
        on_cpu = self.device.type == "cpu"
        with _CALLING:
            before = torch.get_num_threads()
            torch.set_num_threads(self.threads or before)
            try:
                with unpacked_once(self.model) if on_cpu else contextlib.nullcontext():
                    yield
            finally:
                torch.set_num_threads(before)


def _config(settings: GenerationSettings) -> GenerationConfig:
    """The same settings as transformers' object, which names what it would not read."""
    bad = [[token] for token in settings.bad_token_ids]
    names = (
        "decoder_start_token_id pad_token_id num_beams do_sample min_length max_length "
        "no_repeat_ngram_size encoder_no_repeat_ngram_size repetition_penalty "
        "forced_bos_token_id forced_eos_token_id renormalize_logits num_return_sequences"
    ).split()
    names += ["temperature", "top_k", "top_p"] if settings.do_sample else []
    names += ["length_penalty", "early_stopping"] if settings.num_beams > 1 else []
    return GenerationConfig(
        **{name: getattr(settings, name) for name in names},
        eos_token_id=list(settings.eos_token_ids) or None,
        bad_words_ids=bad or None,
        return_dict_in_generate=True,
        output_scores=_scored(settings),
    )


def _scored(settings: GenerationSettings) -> bool:
    """Whether to ask for scores: transformers keeps batch x beams x vocabulary floats a token."""
    return settings.output_scores and settings.num_beams > 1


@contextlib.contextmanager
def _drawing(settings: GenerationSettings, device: torch.device) -> Generator[None, None, None]:
    """Around one draw: its own seed, and the program's random state as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else [], settings.do_sample):
        if settings.do_sample:
            torch.manual_seed(settings.seed)
        yield


def _trimmed(row: list[int], eos: tuple[int, ...]) -> list[int]:
    """A row without its start token and what follows the first EOS."""
    ends = (place for place, token in enumerate(row) if place > 0 and token in eos)
    return row[1 : next(ends, len(row)) + 1]
