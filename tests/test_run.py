"""`python train.py ...` in this process, on a tiny task: from words to a finished artifact."""

import contextlib
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
import wandb
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.data.cmudict import split_of
from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.evaluation.token_error import PhonemeErrorMetric
from dq_lightning.models.student import student_from_scratch
from dq_lightning.models.t5 import FAMILY as t5_family

TinyTask = Any  # of conftest.py
ROWS = {"train": 64, "validation": 16, "test": 16}  # of debug=fast
STOP_AT = "DQ_LIGHTNING_TEST_STOP_AT"


class Stop(pl.Callback):
    """Raises before the optimizer step that the environment names, if it names one."""

    def on_train_batch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        if str(trainer.global_step) == os.environ.get(STOP_AT):
            raise ArithmeticError("stopped by the test")


def save_t5(folder: Path) -> Path:
    """Random weights, 2-2 layers, the tokenizer of the g2p task."""
    tokenizer = build_g2p_tokenizer()
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "decoder_start_token_id": 0}
    student_from_scratch(t5_family, tokenizer, 2, 2, sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Place:
    """A folder of runs on the tiny task."""

    folder: Path
    task: TinyTask
    train: Callable[..., int]

    def run(self, name: str, *more: str, code: int = 0, **env: str) -> Artifact:
        """The same config whatever `name` and `env` are."""
        arguments = [
            *self.task.words, "validations=2", "student.layers=2-1",
            "trainer.log_every_n_steps=1", f"+callbacks.stop._target_={__name__}.Stop",
            *self.paths(name), *more,
        ]  # fmt: skip
        assert self.train(*arguments, **env) == code
        return Artifact(self.folder / "runs" / name)

    def paths(self, name: str) -> list[str]:
        runs, cache = self.folder / "runs", self.folder / "cache"
        return [f"hydra.run.dir={runs / name}", f"paths.runs={runs}", f"paths.cache={cache}"]

    def evaluations(self) -> dict[Path, int]:
        """The cached evaluations and when each was written."""
        files = (self.folder / "cache" / "evaluations").glob("*.json")
        return {file: file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def place(
    tiny_task: TinyTask, train: Callable[..., int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    # Hydra imports Stop by this name, which pytest takes away between the modules. Not patch.dict:
    # that would also take away what was imported meanwhile.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, __name__, sys.modules[__name__])
        yield Place(tmp_path_factory.mktemp("place"), tiny_task, train)


@contextlib.contextmanager
def wandb_ends_with(code: int) -> Iterator[None]:
    """Exactly one W&B run is finished in the block, with this exit code, and none stays open."""
    with mock.patch.object(wandb, "finish", wraps=wandb.finish) as finish:
        yield
    assert finish.mock_calls == [mock.call(exit_code=code)]
    assert wandb.run is None


@pytest.fixture(scope="module")
def unbroken(place: Place) -> Artifact:
    """The run that others are compared with, with both loggers."""
    with wandb_ends_with(0):
        return place.run("unbroken")


@pytest.fixture(scope="module")
def again(place: Place, unbroken: Artifact) -> Artifact:
    """The same command once more; it finds the teacher's two evaluations."""
    cached = place.evaluations()
    artifact = place.run("again", "logger=csv")
    assert place.evaluations() == cached
    assert len(cached) == 2  # validation and test
    return artifact


@pytest.fixture(scope="module")
def broken(place: Place) -> Artifact:
    """A run that raised at its third step, after its first validation."""
    with wandb_ends_with(1):
        return place.run("broken", code=1, **{STOP_AT: "2"})


@pytest.fixture(scope="module")
def resumed(place: Place, broken: Artifact) -> Artifact:
    """The command typed again with ckpt=last: a new run directory, the old one found by config."""
    return place.run("resumed", "logger=csv", "ckpt=last")


def curves(artifact: Artifact) -> list[dict[str, str]]:
    file = max(artifact.logs.glob("*/metrics.csv"))
    return list(csv.DictReader(file.read_text().splitlines()))


def losses(artifact: Artifact) -> list[dict[str, str]]:
    """Step and loss terms as written, one row a training step."""
    rows = [row for row in curves(artifact) if row["train/loss"]]
    return [{k: v for k, v in row.items() if k == "step" or "train/" in k} for row in rows]


def exactly_equal(left: Artifact, right: Artifact) -> None:
    files = [artifact.student / "model.safetensors" for artifact in (left, right)]
    torch.testing.assert_close(*(load_file(file) for file in files), rtol=0, atol=0)
    mine, other = (artifact.read_json("metrics.json") for artifact in (left, right))
    assert mine | {"generation_seconds": other["generation_seconds"]} == other  # clocks differ
    assert left.read_jsonl("predictions.jsonl") == right.read_jsonl("predictions.jsonl")
    assert right.read_json("status.json")["status"] == "finished"


def test_config_environment_and_quantization_are_told(unbroken: Artifact) -> None:
    assert "${" not in unbroken.read_text("config.yaml")
    config = yaml.safe_load(unbroken.read_text("config.yaml"))
    assert config["paths"]["output_dir"] == str(unbroken.run_dir)
    environment = unbroken.read_json("environment.json")
    assert (environment["seed"], environment["device"]) == (28, "cpu")
    assert environment["packages"]["torch"] == torch.__version__
    quantization = unbroken.read_json("quantization.json")
    assert (quantization["bits"], quantization["head"]) == ("2-2-8", "tied")
    assert "model.encoder.layers.1.fc1" in json.dumps(quantization)


def test_metrics_are_those_of_the_predictions(unbroken: Artifact) -> None:
    metrics = unbroken.read_json("metrics.json")
    assert metrics["metric_recipe"] == PhonemeErrorMetric().recipe
    assert unbroken.read_json("status.json")["cell"] == metrics["cell"]
    rows = unbroken.read_jsonl("predictions.jsonl")
    assert metrics.keys() >= {"teacher", "student", "drop", "bytes", "parameters", "cell"}
    assert metrics["bytes"].keys() >= {"teacher", "student_nominal", "ratio"}
    sizes = [metrics["bytes"][f"student_{rule}"] for rule in ("nominal", "reference_rule")]
    assert sizes[0] < sizes[1] < metrics["bytes"]["student_as_evaluated"]
    assert metrics["bytes"]["stored"] == (unbroken.run_dir / "model.dq").stat().st_size
    assert metrics["packed"]["bytes"] == metrics["bytes"]["stored"]
    references = [row["references"] for row in rows]
    for model in ("teacher", "student"):
        texts = [row[model] for row in rows]
        assert metrics[model] == PhonemeErrorMetric().compute(texts, references)
    for name, drop in metrics["drop"].items():
        assert drop == pytest.approx(metrics["student"][name] - metrics["teacher"][name])
        assert str(drop) != "-0.0"


def test_predictions_are_of_the_test_split_alone(place: Place, unbroken: Artifact) -> None:
    rows = unbroken.read_jsonl("predictions.jsonl")
    assert len(rows) == ROWS["test"]
    assert {split_of(row["source"]) for row in rows} == {"test"}
    assert all(row["references"] == [place.task.said(row["source"])] for row in rows)


def test_the_student_reloads(unbroken: Artifact) -> None:
    student = AutoModelForSeq2SeqLM.from_pretrained(unbroken.student)
    assert (student.config.encoder_layers, student.config.decoder_layers) == (2, 1)
    tokenizers = AutoTokenizer.from_pretrained(unbroken.student), build_g2p_tokenizer()
    assert tokenizers[0]("bad").input_ids == tokenizers[1]("bad").input_ids
    counted = unbroken.read_json("metrics.json")["parameters"]["student"]
    state = load_file(unbroken.student / "quantizers.safetensors").items()
    assert counted == student.num_parameters() + sum(v.numel() for n, v in state if "scale" in n)


def test_curves_name_every_loss_term(unbroken: Artifact) -> None:
    rows = curves(unbroken)
    for name in ("train/loss", "train/task", "train/logits", "train/hidden"):
        assert [float(row[name]) > 0 for row in rows if row[name]] == 4 * [True]
    assert sum(bool(row["validation/wer"]) for row in rows) == 2
    assert "train/attention" not in rows[0]  # its weight is 0


def test_curves_end_with_the_results(unbroken: Artifact) -> None:
    assert curves(unbroken)[-1]["student/wer"]


def test_the_default_logs_to_wandb_offline(unbroken: Artifact) -> None:
    (run,) = unbroken.run_dir.glob("wandb/offline-run-*")
    content = b"".join(file.read_bytes() for file in run.glob("*.wandb"))
    for word in (b"2-2-8 2-1", b"train/hidden", b"student_nominal", b"drop/wer"):
        assert word in content
    (table,) = run.glob("files/media/table/*.json")
    assert json.loads(table.read_text())["columns"][2:] == ["student", "teacher"]


def test_same_config_and_seed_give_the_same_bits(unbroken: Artifact, again: Artifact) -> None:
    exactly_equal(unbroken, again)
    assert losses(unbroken) == losses(again)


def test_a_run_that_raises_says_so(broken: Artifact) -> None:
    status = broken.read_json("status.json")
    assert status["status"] == "failed"
    assert status["error"] == "ArithmeticError: stopped by the test"
    assert "on_train_batch_start" in status["traceback"]
    assert not any((broken.run_dir / name).exists() for name in ("metrics.json", "student"))


def test_resumed_elsewhere_equals_unbroken(resumed: Artifact, unbroken: Artifact) -> None:
    assert losses(resumed) == losses(unbroken)[2:]  # only the remaining steps, bit for bit
    exactly_equal(resumed, unbroken)


def test_resumed_in_its_own_folder_equals_unbroken(
    place: Place, broken: Artifact, resumed: Artifact, unbroken: Artifact
) -> None:
    own = place.run("broken", "logger=csv", "ckpt=last")
    assert losses(own) == losses(unbroken)[2:]
    exactly_equal(own, unbroken)


def test_the_last_checkpoint_is_of_the_last_validation(unbroken: Artifact) -> None:
    assert torch.load(unbroken.checkpoints / "last.ckpt", weights_only=False)["global_step"] == 4


def test_without_loggers_and_with_another_seed(place: Place, unbroken: Artifact) -> None:
    other = place.run("other", "logger=none", "seed=29")
    with pytest.raises(AssertionError, match="not equal"):
        exactly_equal(unbroken, other)


def test_t5_and_local_files(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for name, rows in ROWS.items():
        pairs = ({"document": f"a bad dog {row}", "summary": f"dog {row}"} for row in range(rows))
        (place.folder / f"{name}.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    code = place.train(
        "debug=fast", "data=jsonl", "data.source=document", "data.target=summary",
        *(f"data.{name}={place.folder / name}.jsonl" for name in ROWS),
        f"teacher={save_t5(place.folder / 't5')}", "student.layers=1", "quant.bits=4",
        "data.generation.max_length=12", "trainer.accelerator=cpu", "logger=csv", *place.paths("t5")
    )  # fmt: skip
    printed = capsys.readouterr()
    assert code == 0, printed.err
    for words in ("validation  rouge1", "rougeLsum", "Student 4-4-8 1-1", "Run directory: "):
        assert words in printed.out
    artifact = Artifact(place.folder / "runs" / "t5")
    assert len(artifact.read_jsonl("predictions.jsonl")) == ROWS["test"]
    config = AutoModelForSeq2SeqLM.from_pretrained(artifact.student).config
    assert (config.model_type, config.num_layers, config.num_decoder_layers) == ("t5", 1, 1)
