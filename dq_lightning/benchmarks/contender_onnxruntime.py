"""The same student in onnxruntime, its codes in MatMulNBits, with a search of our own."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dq_lightning.artifacts.export_onnx import DECODER, ENCODER, export_onnx
from dq_lightning.artifacts.optional_package import optional_package
from dq_lightning.benchmarks.contender import Contender, Sources, Subject
from dq_lightning.benchmarks.padding import padded

PACKAGE = "onnxruntime"
Arrays = dict[str, NDArray[Any]]


def load(subject: Subject, threads: int) -> Contender:
    """Export the student once, and load the result."""
    folder = subject.folder / "onnx"
    if not folder.exists():
        export_onnx(subject.student, folder)
    began = time.perf_counter()
    model = OnnxModel(folder, threads, subject.student.generation)
    return Contender(
        description="the same student, MatMulNBits, int8 activations by blocks",
        generate=model.generate,
        load_seconds=time.perf_counter() - began,
        resident_bytes=None,
        stored_bytes=sum(file.stat().st_size for file in folder.iterdir()),
    )


class OnnxModel:
    """An exported folder that generates texts of a fixed length, by beams or greedily."""

    def __init__(self, folder: Path, threads: int, generation: Any) -> None:
        self._encoder, self._decoder = (
            _session(folder / name, threads) for name in (ENCODER, DECODER)
        )
        self._names = [output.name for output in self._decoder.get_outputs()]
        start, eos, pad = (
            generation.get(f"{name}_token_id") for name in ("decoder_start", "eos", "pad")
        )
        self._start, self._pad = start, pad or 0
        self._never = [eos] if isinstance(eos, int) else list(eos or [])

    def generate(self, sources: Sources, beams: int, tokens: int) -> list[list[int]]:
        """The best `tokens` tokens of each source; one beam is greedy.

        Every beam has the same length, so the sum of log-probabilities alone decides.
        """
        ids, mask = padded(sources, self._pad)
        names = [output.name for output in self._encoder.get_outputs()]
        cross = self._encoder.run(None, {"input_ids": ids, "attention_mask": mask})
        given: Arrays = {
            name: np.repeat(value, beams, axis=0) for name, value in zip(names, cross, strict=True)
        }
        given["attention_mask"] = np.repeat(mask, beams, axis=0)
        rows, past = len(sources) * beams, _empty_past(given)
        texts = torch.full((rows, 1), self._start)
        scores = torch.full((len(sources), beams), -1e9)
        scores[:, 0] = 0.0  # all beams of a source begin alike: the first one alone counts
        for _ in range(tokens):
            given["input_ids"] = texts[:, -1:].numpy()
            logits, *present = self._decoder.run(self._names, given | past)
            scores, order, chosen = self._step(torch.from_numpy(logits[:, -1]), scores)
            texts = torch.cat([texts[order], chosen[:, None]], dim=1)
            past = {
                name.replace("present", "past"): value if beams == 1 else value[order.numpy()]
                for name, value in zip(self._names[1:], present, strict=True)
            }
        return texts[::beams, 1:].tolist()

    def _step(
        self, logits: torch.Tensor, scores: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """New scores (sources, beams), best first; the row each comes from, and its token."""
        sources, beams = scores.shape
        logits[:, self._never] = -torch.inf
        candidates = torch.log_softmax(logits, -1) + scores.view(-1, 1)
        best, place = candidates.view(sources, -1).topk(beams)
        vocabulary = logits.shape[-1]
        rows = place // vocabulary + beams * torch.arange(sources)[:, None]
        return best, rows.flatten(), (place % vocabulary).flatten()


def _session(file: Path, threads: int) -> Any:
    onnxruntime = optional_package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _empty_past(cross: Arrays) -> Arrays:
    shapes = {n: v.shape for n, v in cross.items() if n.startswith("cross")}
    return {
        name.replace("cross", "past"): np.zeros((rows, heads, 0, size), np.float32)
        for name, (rows, heads, _, size) in shapes.items()
    }
