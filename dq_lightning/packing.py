"""The end of a run: the student as the one file that ships, scored and timed as that file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.artifacts.packed_run import PACKED, pack_run_student
from dq_lightning.artifacts.results import drops
from dq_lightning.benchmarks.size import nominal_bytes
from dq_lightning.choices import cell_columns, plain
from dq_lightning.composition import Parts
from dq_lightning.evaluation.evaluate import Evaluation
from dq_lightning.quantization.recipe import Bits
from dq_lightning.runtime.loading import Runtime, load

Writer = Callable[[Mapping[str, Tensor]], list[str]]


@dataclass(frozen=True)
class Packed:
    """What metrics.json says of the packed file, and how to generate with it for the clock.

    teacher_bytes: of the full-precision model that sizes are compared with, in fp32; without a
    teacher, the student's own.
    """

    results: dict[str, Any]
    teacher_bytes: int
    write: Writer | None = None

    @property
    def writers(self) -> dict[str, Writer]:
        """The packed file's line in a comparison of generation times, where it can generate."""
        return {} if self.write is None else {"packed": self.write}

    @property
    def sizes(self) -> dict[str, float]:
        """Bytes on disk, everything in them, and how many times smaller than the teacher's fp32."""
        size = self.results["bytes"]
        return {} if size is None else {"stored": size, "stored_ratio": self.teacher_bytes / size}


def pack_and_score(
    cfg: DictConfig,
    artifact: Artifact,
    parts: Parts,
    student: Evaluation,
    teacher: Evaluation | None,
) -> Packed:
    """Write model.dq and generate the test rows with it, as far as its recipe allows.

    A recipe that no packed file can hold, and one that the native engine does not run, are told in
    `reason`: a run does not fail for them.
    """
    results: dict[str, Any] = dict.fromkeys(
        ("file", "bytes", "engine", "scores", "drop", "identical", "reason")
    ) | {"positions_bits": cfg.packed.positions_bits}
    path = artifact.run_dir / PACKED
    path.unlink(missing_ok=True)  # of an earlier run here: this student may have no packed file
    whole = parts.teacher.model if parts.teacher else parts.student
    teacher_bytes = nominal_bytes(whole, Bits(32, 32, 32), parts.family).published_bytes
    scores = {
        "student": student.scores,
        "teacher": teacher.scores if teacher else {},
        "bytes": {"teacher": teacher_bytes},
    }
    try:
        results |= {"bytes": _write(cfg, path, parts, scores), "file": PACKED}
        runtime = load(path, engine="native", threads=torch.get_num_threads())
    except ValueError as error:
        print(f"Packed student: {error}", flush=True)
        return Packed(results | {"reason": str(error)}, teacher_bytes)
    results["engine"] = runtime.engine_name
    write = _writer(runtime, parts)
    if cfg.packed.score and not parts.generator.settings.get("do_sample"):
        results |= _score(parts, student, write)
    return Packed(results, teacher_bytes, write)


def _write(cfg: DictConfig, path: Path, parts: Parts, scores: Mapping[str, Any]) -> int:
    _, size = pack_run_student(
        path,
        parts.student,
        parts.family,
        parts.tokenizer,
        generation=parts.generator.settings,
        config=plain(cfg),
        metrics={"cell": cell_columns(cfg), "primary_metric": parts.metric.primary, **scores},
        positions_bits=cfg.packed.positions_bits,
    )
    return size


def _writer(runtime: Runtime, parts: Parts) -> Writer:
    """Texts of one batch of token ids, as the run's own TextGenerator gives them."""

    def write(batch: Mapping[str, Tensor]) -> list[str]:
        pairs = zip(batch["input_ids"], batch["attention_mask"], strict=True)
        sources = [ids[mask.bool()].tolist() for ids, mask in pairs]
        written = runtime.generate_ids(sources, **parts.generator.settings)
        ids = [generation.token_ids for generation in written]
        texts = parts.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    return write


def _score(parts: Parts, student: Evaluation, write: Writer) -> dict[str, Any]:
    references = parts.data.references("test")
    print(f"Generating with the packed file: {len(references):,} test rows", flush=True)
    texts: dict[int, str] = {}
    for batch in parts.data.test_dataloader():
        texts.update(zip(batch["index"].tolist(), write(batch), strict=True))
    ordered = [texts[index] for index in sorted(texts)]
    scores = parts.metric.compute(ordered, [references[index] for index in sorted(references)])
    same = sum(mine == other for mine, other in zip(ordered, student.texts, strict=True))
    return {
        "scores": scores,
        "drop": drops(student.scores, scores, parts.metric.higher_is_better),
        "identical": same / len(ordered),
    }
