"""A sweep's folder as the runs leave it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dq_lightning.artifacts.artifact import Artifact

MakeRun = Callable[..., Artifact]


def cell_of(weight: int, encoder: int, decoder: int) -> dict[str, Any]:
    return {
        "weight_bits": weight,
        "embedding_bits": weight,
        "activation_bits": 8,
        "encoder_layers": encoder,
        "decoder_layers": decoder,
        "name": f"{weight}-{weight}-8 {encoder}-{decoder}",
    }


def metrics_of(cell: dict[str, Any], wer: float | None = 34.12) -> dict[str, Any]:
    return {
        "teacher": {"per": 5.2, "wer": 30.0},
        "student": {"per": 7.25, "wer": wer},
        "drop": {"per": 2.05, "wer": None if wer is None else wer - 30.0},
        "bytes": {"teacher": 12_345_678, "student_nominal": 1_234_567, "ratio": 10.0},
        "parameters": {"teacher": 3_000_123, "student": 2_000_000},
        "generation_seconds": {"teacher": 12.5, "student": 5.0},
        "cell": cell,
        "primary_metric": "wer",
        "timed_items": 1000,
        "run": {"steps": 1200, "items": {"train": 110_000, "test": 1000}},
    }


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(name: str, weight: int, encoder: int, decoder: int, **options: Any) -> Artifact:
        artifact = Artifact(tmp_path / "sweep" / name)
        cell = cell_of(weight, encoder, decoder)
        artifact.write_json(
            "environment.json", {"device": "cpu", "seed": 1, "command": "python train.py -m"}
        )
        with artifact.running(cell):
            artifact.write_json("metrics.json", metrics_of(cell, **options))
        return artifact

    return make


@pytest.fixture
def sweep(tmp_path: Path, make_run: MakeRun) -> Path:
    """Four finished cells, one failed with a table-breaking message, one still running."""
    for number, cell in enumerate([(16, 3, 3), (8, 6, 3), (2, 6, 3), (8, 1, 1)]):
        make_run(str(number), *cell)
    failed = Artifact(tmp_path / "sweep" / "4")
    with pytest.raises(RuntimeError), failed.running(cell_of(4, 6, 3)):
        raise RuntimeError("first | line\nout of memory")
    running = Artifact(tmp_path / "sweep" / "5")
    running.write_json("status.json", {"status": "running", "cell": cell_of(2, 1, 1)})
    return tmp_path / "sweep"
