"""What a sweep's cell leaves in W&B's offline files, read back: an interrupted run and its end."""

import json
import os
import signal
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
import wandb
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from wandb.proto.wandb_internal_pb2 import Record

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.choices import cell_id
from dq_lightning.reporting.report import write_report
from dq_lightning.run import run
from dq_lightning.sweeps.wandb_summary import log_sweep

TinyTask = Any  # of conftest.py
CONF = Path(__file__).parents[1] / "conf"
BLOCK = 2**15


class Terminated(pl.Callback):
    """Gets SIGTERM before the third step, the first time."""

    def on_train_batch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        if trainer.global_step == 2 and os.environ.pop("TEST_WANDB_SIGTERM", None):
            os.kill(os.getpid(), signal.SIGTERM)


@dataclass
class Offline:
    """The content of one .wandb file."""

    run: Any = None
    exit_code: int | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    steps: list[tuple[int, int]] = field(default_factory=list)  # W&B's, the trainer's


def records(file: Path) -> Iterator[Record]:
    """The records of a log in LevelDB's format: blocks of pieces, each with checksum and length."""
    data = file.read_bytes()
    assert data[:4] == b":W&B"
    position, pieces = 7, b""
    while position + 7 <= len(data):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        pieces += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(pieces)
            pieces = b""


def read(file: Path) -> Offline:
    found = Offline()
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
        elif kind == "summary":
            for item in record.summary.update:
                key = "/".join(item.nested_key) or item.key
                found.summary[key] = json.loads(item.value_json)
        elif kind == "history":
            row = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            if "trainer/global_step" in row:
                step = int(float(row["trainer/global_step"]))
                found.steps.append((int(row["_step"]), step))
    return found


@pytest.fixture(scope="module")
def config(tiny_task: TinyTask, tmp_path_factory: pytest.TempPathFactory) -> DictConfig:
    folder = tmp_path_factory.mktemp("place")
    words = [
        *tiny_task.words, "validations=4", "student.layers=2-1", "logger=wandb", "samples=5",
        "sweep.name=grid", "data.generation.max_new_tokens=12",
        f"+callbacks.stop._target_={__name__}.Terminated",
        f"paths.output_dir={folder / 'run'}", f"paths.runs={folder}", f"paths.cache={folder}",
    ]  # fmt: skip
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.create(OmegaConf.to_yaml(compose("train", words), resolve=True))


@pytest.fixture(scope="module")
def logged(config: DictConfig) -> list[Offline]:
    """A run that got SIGTERM after a checkpoint, and the same run resumed to its end."""
    module = {__name__: sys.modules[__name__]}
    environment = {"TEST_WANDB_SIGTERM": "1", "WANDB_MODE": "offline"}
    with mock.patch.dict(sys.modules, module), mock.patch.dict(os.environ, environment):
        with pytest.raises(SystemExit) as leaving:
            run(config)
        assert leaving.value.code == 143
        run(OmegaConf.merge(config, {"ckpt": "last"}))  # pyright: ignore
    torch.use_deterministic_algorithms(False)
    assert wandb.run is None
    files = sorted(Path(config.paths.output_dir).glob("wandb/offline-run-*/*.wandb"))
    return [read(file) for file in files]


def test_both_starts_are_one_run_of_the_cells_id(config: DictConfig, logged: list[Offline]) -> None:
    assert len(logged) == 2
    for start in logged:
        assert start.run.run_id == cell_id(config)
        assert start.run.resume  # so that a sync adds to what is there
        assert (start.run.run_group, start.run.project) == ("grid", "dq_lightning")
        assert start.run.display_name == "2-2-8 2-1"
        assert list(start.run.tags) == ["2-2-8", "2-1"]
    stored = Artifact(config.paths.output_dir).read_text("wandb_run_id.txt")
    assert stored.strip() == cell_id(config)


def test_the_exit_codes_are_those_of_the_processes(logged: list[Offline]) -> None:
    assert [start.exit_code for start in logged] == [143, 0]


def test_the_summary_holds_the_results(config: DictConfig, logged: list[Offline]) -> None:
    metrics = Artifact(config.paths.output_dir).read_json("metrics.json")
    summary = logged[-1].summary
    for group in ("teacher", "student", "drop", "bytes", "generation_seconds"):
        for name, value in metrics[group].items():
            assert summary[f"{group}/{name}"] == pytest.approx(value)
    seconds = metrics["generation_seconds"]["student"]
    assert summary["items_per_second/student"] == pytest.approx(metrics["timed_items"] / seconds)
    sizes = ("nominal", "reference_rule", "as_evaluated")
    assert all(summary[f"bytes/student_{size}"] > 0 for size in sizes)
    assert summary["predictions/nrows"] == 5


def test_the_table_holds_sample_predictions(config: DictConfig, logged: list[Offline]) -> None:
    run_dir = Path(config.paths.output_dir)
    (table,) = run_dir.glob("wandb/offline-run-*/files/media/table/*.json")
    content = json.loads(table.read_text())
    assert content["columns"] == ["source", "references", "student", "teacher"]
    sources = [row["source"] for row in Artifact(run_dir).read_jsonl("predictions.jsonl")]
    assert [row[0] for row in content["data"]] == sources[:5]


def test_steps_rise_in_each_start(logged: list[Offline]) -> None:
    for start in logged:
        own, trainers = zip(*start.steps, strict=True)
        assert list(own) == sorted(set(own))
        assert list(trainers) == sorted(trainers)
    assert logged[1].steps[0][1] >= 2  # goes on after the checkpoint


def test_a_sweep_is_one_more_run_of_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells the best cell, and ends with 1 because a cell failed."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name, wer in (("8-8-8 6-6", 31.0), ("2-2-8 6-3", 35.0)):
        artifact = Artifact(tmp_path / name)
        with artifact.running({"name": name}):
            scores = {"student": {"wer": wer}, "teacher": {"wer": 30.0}, "drop": {"wer": wer - 30}}
            packed = {"bytes": {"stored": 1000}, "packed": {"identical": 0.5}}
            artifact.write_json("metrics.json", {"primary_metric": "wer", **scores, **packed})
    failed = Artifact(tmp_path / "2-2-8 1-1")
    with pytest.raises(ValueError, match="no"), failed.running({"name": "2-2-8 1-1"}):
        raise ValueError("no")
    log_sweep("dq_lightning", tmp_path, write_report(tmp_path, figures=False))
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    found = read(file)
    assert found.run.run_id.startswith("sweep-")
    assert (found.run.run_group, found.run.job_type) == (tmp_path.name, "sweep")
    assert found.exit_code == 1
    assert (found.summary["best/cell"], found.summary["best/wer"]) == ("8-8-8 6-6", 31.0)
    assert (found.summary["best/stored_bytes"], found.summary["best/packed_identical"]) == (
        1000,
        0.5,
    )
    assert "best/packed_wer" not in found.summary
    assert (found.summary["cells/finished"], found.summary["cells/failed"]) == (2, 1)
    report = (tmp_path / "wandb_report.md").read_text()
    assert "x `bytes/stored` (log), y `drop/wer`" in report
