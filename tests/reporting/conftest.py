"""A sweep's folder as the runs leave it."""

import csv
import json
import math
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def metrics_of(
    cell: dict[str, Any], wer: float | None = 34.12, packed: bool = True
) -> dict[str, Any]:
    """As a run writes them; not `packed`: as runs wrote them before there was a packed file."""
    found = {
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
    if packed:
        found["bytes"] |= {"stored": 987_654, "stored_ratio": 12.5}
        found["generation_seconds"]["packed"] = 2.0
        found["packed"] = packed_of(wer)
    return found


def packed_of(wer: float | None = 34.12, reason: str | None = None) -> dict[str, Any]:
    """Of a file that writes two test items in a thousand otherwise; or why there is none."""
    if reason:
        nothing = dict.fromkeys(("file", "bytes", "engine", "scores", "drop", "identical"))
        return nothing | {"positions_bits": None, "reason": reason}
    worse = None if wer is None else wer + 0.1
    return {
        "file": "model.dq",
        "bytes": 987_654,
        "positions_bits": 8,
        "engine": "native",
        "scores": {"per": 7.27, "wer": worse},
        "drop": {"per": 0.02, "wer": 0.1},
        "identical": 0.998,
        "reason": None,
    }


@pytest.fixture(name="packed_of")
def give_packed_of() -> Callable[..., dict[str, Any]]:
    return packed_of


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
    """Four finished cells, the last without a packed file; one failed with a table-breaking
    message, one still running."""
    for number, cell in enumerate([(16, 3, 3), (8, 6, 3), (2, 6, 3), (8, 1, 1)]):
        make_run(str(number), *cell, packed=number < 3)
    failed = Artifact(tmp_path / "sweep" / "4")
    with pytest.raises(RuntimeError), failed.running(cell_of(4, 6, 3)):
        raise RuntimeError("first | line\nout of memory")
    running = Artifact(tmp_path / "sweep" / "5")
    running.write_json("status.json", {"status": "running", "cell": cell_of(2, 1, 1)})
    return tmp_path / "sweep"


WORDS = ["'round", "aasen", "abated", "<script>alert(1)</script>", "a & b", "zürich", "\u2028"]


def score_of(bits: int, layers: str, seed: int = 28) -> float:
    """Plausible: fewer bits and layers cost words, and seeds differ a little."""
    depth = sum(map(int, layers.split("-")))
    return 28.5 + 60 / depth**1.3 + {1: 30, 2: 6, 3: 3, 4: 1}.get(bits, 0.3) + seed % 7 / 5


def write_curves(artifact: Artifact, score: float, steps: int = 1200) -> None:
    """Two starts: the second resumes at step 600 and ends with the results, which have no step."""
    columns = [
        "step",
        "lr",
        "train/loss",
        "train/task",
        "train/hidden",
        "validation/wer",
        "drop/wer",
    ]
    for start, (first, last) in enumerate([(0, min(700, steps)), (600, steps)]):
        if first >= steps:
            continue
        file = artifact.logs / str(start) / "metrics.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            for step in range(first + 19, last, 20):
                loss = math.exp(-step / 300) + score / 200 + start / 100
                parts = {"train/task": loss / 2, "train/hidden": loss / 3}
                writer.writerow({"step": step, "lr": 1e-3, "train/loss": loss, **parts})
                if step % 300 == 299:
                    writer.writerow({"step": step, "validation/wer": score + 300 / step})
            writer.writerow({"step": 0, "drop/wer": 4.0})


def write_cell(
    folder: Path, bits: int, layers: str, state: str, seed: int = 28, items: int = 40
) -> dict[str, Any]:
    """One run folder as a run in that state leaves it, and its entry in the manifest.

    The state `unpacked` is a finished one of before there were packed files.
    """
    packed, state = state != "unpacked", state.replace("unpacked", "finished")
    encoder, _, decoder = layers.partition("-")
    cell = cell_of(bits, int(encoder), int(decoder or encoder))
    name = f"{cell['name'].replace(' ', '_')}_{bits}{seed}{layers}"
    artifact = Artifact(folder / "cells" / name)
    settings = [f"quant.bits={bits}", f"student.layers={layers}", f"seed={seed}"]
    entry = {
        "id": name,
        "name": cell["name"],
        "overrides": settings,
        "run_dir": f"../../cells/{name}",
    }
    if state == "queued":
        return entry
    score = score_of(bits, cell["name"].split()[1], seed)
    config = {"seed": seed, "quant": {"bits": bits, "head": "tied"}, "student": {"layers": layers},
              "data": {"name": "cmudict", "limit_test": None}, "paths": {"runs": name}}  # fmt: skip
    artifact.write_text("config.yaml", yaml.safe_dump(config))
    artifact.write_json(
        "environment.json", {"device": "cpu", "seed": seed, "git_sha": "0123456789ab"}
    )
    write_curves(artifact, score, 1200 if state == "finished" else 640)
    status = {"status": state, "pid": os.getpid(), "host": socket.gethostname(), "cell": cell,
              "started": "2026-11-20T09:00:00+00:00"}  # fmt: skip
    if state == "running":
        progress = {"stage": "train", "step": 640, "steps": 1200, "validation": {"wer": score + 2}}
        artifact.write_json("progress.json", progress)
    if state == "failed":
        error = "RuntimeError: loss is nan at step 641; <b>lower</b> optimizer.lr"
        status |= {"error": error, "seconds": 61.0}
    if state == "finished":
        status["seconds"] = 40.0 * int(encoder)
        artifact.write_json("metrics.json", measured(cell, score, packed))
        artifact.write_jsonl("predictions.jsonl", [prediction(n, bits) for n in range(items)])
    artifact.write_json("status.json", status)
    return entry


def measured(cell: dict[str, Any], score: float, packed: bool) -> dict[str, Any]:
    """Metrics whose sizes and times go with bits and layers."""
    metrics = metrics_of(cell, wer=score, packed=packed)
    bits, encoder = cell["weight_bits"], cell["encoder_layers"]
    teacher = 12_345_678
    size = int(teacher * (bits + 1) / 34 * (encoder + cell["decoder_layers"]) / 12)
    metrics["bytes"] |= {"student_nominal": size, "ratio": teacher / size}
    metrics["generation_seconds"]["student"] = 1.0 + 0.6 * encoder + bits / 50
    if packed:
        stored = size + 20_000
        metrics["bytes"] |= {"stored": stored, "stored_ratio": teacher / stored}
        metrics["generation_seconds"]["packed"] = 0.2 + 0.1 * encoder
    return metrics


def prediction(number: int, bits: int) -> dict[str, Any]:
    word = f"{WORDS[number % len(WORDS)]} {number}"
    right = f"R AW N D {number}"
    wrong = number % bits == 0
    student = f"R <b>AH</b> N T {number}</script>" if wrong else right
    return {"source": word, "references": [right, f"R AW {number}"], "student": student,
            "teacher": right}  # fmt: skip


@pytest.fixture(scope="session")
def sweep_writer() -> Callable[..., Path]:
    """Writes a sweep below a folder, from (bits, layers, state[, seed[, items]]) of its cells."""
    return write_sweep


@pytest.fixture(scope="session")
def nine() -> list[tuple[int, str, str]]:
    """A grid half way."""
    return NINE


@pytest.fixture
def make_sweep(tmp_path: Path) -> Callable[..., Path]:
    """A sweep folder with its manifest, below the test's folder."""
    return partial(write_sweep, tmp_path)


def write_sweep(folder: Path, cells: list[tuple[Any, ...]], status: str = "finished") -> Path:
    sweep_dir = folder / "sweeps" / "grid-0a1b2c"
    sweep_dir.mkdir(parents=True)
    entries = [write_cell(folder, *cell) for cell in cells]
    command = "python train.py -m quant.bits=2,4,8 student.layers=1,3,6 debug=fast jobs=2"
    manifest = {"name": "grid-0a1b2c", "created": "2026-11-20T08:59:00+00:00", "command": command,
                "status": status, "cells": entries}  # fmt: skip
    (sweep_dir / "sweep.json").write_text(json.dumps(manifest))
    return sweep_dir


NINE = [(2, "1", "finished"), (2, "3", "failed"), (2, "6", "finished"), (4, "1", "finished"),
        (4, "3", "finished"), (4, "6", "finished"), (8, "1", "finished"), (8, "3", "running"),
        (8, "6", "queued")]  # fmt: skip
