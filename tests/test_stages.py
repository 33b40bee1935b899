"""Runs in stages, end to end on a tiny task: schedules, teacher assistants, pseudo-labels."""

import csv
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.artifacts.student_folder import QUANTIZERS

TinyTask = Any  # of conftest.py
STOP_AT = "DQ_LIGHTNING_TEST_STAGES_STOP_AT"
LEARNED = [
    "quantizer@quant.weight.quantizer=dynamic_scaling",
    "quantizer@quant.embedding.quantizer=lsq",
    "quantizer@quant.activation.quantizer=lsq_plus",
    *(f"quant.{s}.quantizer.granularity=per_tensor" for s in ("weight", "embedding", "activation")),
    "quant.activation.quantizer.activation=true",
]


class Stop(pl.Callback):
    """Stops before the optimizer step that the environment names: an error, or "2 SIGTERM"."""

    def on_train_batch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        if os.environ.get(STOP_AT) == f"{trainer.global_step} SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        elif os.environ.get(STOP_AT) == str(trainer.global_step):
            raise ArithmeticError("stopped by the test")


@dataclass(frozen=True)
class Place:
    """A folder of runs on the tiny task."""

    folder: Path
    task: TinyTask
    train: Callable[..., int]

    def run(self, name: str, *more: str, code: int = 0, **env: str) -> Artifact:
        runs = self.folder / "runs"
        arguments = [
            *self.task.words, "validations=2", "student.layers=2-1",
            "logger=csv", f"+callbacks.stop._target_={__name__}.Stop",
            "data.generation.max_new_tokens=12", f"hydra.run.dir={runs / name}",
            f"paths.runs={runs}", f"paths.cache={self.folder / 'cache'}", *more,
        ]  # fmt: skip
        assert self.train(*arguments, **env) == code
        return Artifact(runs / name)


@pytest.fixture(scope="module")
def place(
    tiny_task: TinyTask, train: Callable[..., int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("place"), tiny_task, train)
    with mock.patch.dict(sys.modules, {__name__: sys.modules[__name__]}):  # Hydra imports Stop
        yield place


def texts(artifact: Artifact, model: str) -> list[str]:
    return [row[model] for row in artifact.read_jsonl("predictions.jsonl")]


def weights(artifact: Artifact) -> dict[str, torch.Tensor]:
    return load_file(artifact.student / "model.safetensors")


def curves(artifact: Artifact) -> list[dict[str, str]]:
    file = max(artifact.logs.glob("*/metrics.csv"))
    return list(csv.DictReader(file.read_text().splitlines()))


@pytest.mark.parametrize("schedule", ["gradual", "delayed", "progressive"])
def test_a_schedule_from_the_command_line(place: Place, schedule: str) -> None:
    """Stopped after the last switch (step 2) and resumed, it is the unbroken run bit for bit."""
    chosen = [f"quant_schedule={schedule}", "validations=4"]
    progressive = schedule == "progressive"
    chosen += ["quant=ternary"] if progressive else ["quant_schedule.fraction=0.5"]
    unbroken = place.run(f"{schedule}-unbroken", *chosen)
    place.run(f"{schedule}-broken", *chosen, code=1, **{STOP_AT: "2"})
    resumed = place.run(f"{schedule}-broken", *chosen, "ckpt=last")
    torch.testing.assert_close(weights(resumed), weights(unbroken), rtol=0, atol=0)
    assert texts(resumed, "student") == texts(unbroken, "student")
    (best,) = unbroken.checkpoints.glob("best-*.ckpt")
    assert torch.load(best, weights_only=False)["global_step"] > 2
    plain = place.run(f"{schedule}-plain", *(["quant=ternary"] if progressive else []))
    assert weights(plain).keys() == weights(unbroken).keys()


def test_a_terminated_run_says_so_and_goes_on(place: Place) -> None:
    """A scheduler must not take exit code 0 for the end of the work."""
    unbroken = place.run("whole", "validations=4")
    broken = place.run("terminated", "validations=4", code=143, **{STOP_AT: "2 SIGTERM"})
    status = broken.read_json("status.json")
    assert status["status"] != "finished"
    assert status["error"] == "SystemExit: 143"
    resumed = place.run("terminated", "validations=4", "ckpt=last")
    torch.testing.assert_close(weights(resumed), weights(unbroken), rtol=0, atol=0)


def test_scales_that_start_late_are_not_averaged(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.run("late", *LEARNED, "quant_schedule=delayed", code=1)
    assert "write averaging=none." in capsys.readouterr().err


def test_a_rate_for_learned_scales(place: Place) -> None:
    with_rate = place.run(
        "rate", *LEARNED, "optimizer=one_rate", "optimizer.scale_lr=0.01", "optimizer.lr=0.02"
    )
    rows = [row for row in curves(with_rate) if row["train/loss"]]
    assert [float(row["lr"]) for row in rows] == pytest.approx([0.02, 0.015, 0.01, 0.005])
    assert [float(row["scale_lr"]) for row in rows] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


@pytest.fixture(scope="module")
def first(place: Place) -> Artifact:
    """A run whose student has learned scales and fp16 weights."""
    return place.run("first", *LEARNED, "quant.bits=4-4-8", "student.save_dtype=float16")


@pytest.fixture(scope="module")
def second(place: Place, first: Artifact) -> Artifact:
    return place.run("second", f"teacher={first.run_dir}", "student.layers=2-1", "quant.bits=2")


def test_a_run_as_teacher_scores_as_it_did(first: Artifact, second: Artifact) -> None:
    assert second.read_json("metrics.json")["teacher"] == first.read_json("metrics.json")["student"]
    assert texts(second, "teacher") == texts(first, "student")


def test_a_chain_of_three(place: Place, second: Artifact) -> None:
    third = place.run("third", f"teacher={second.run_dir}", "student.layers=1-1", "quant.bits=2")
    assert third.read_json("metrics.json")["teacher"] == second.read_json("metrics.json")["student"]
    assert texts(third, "teacher") == texts(second, "student")
    assert third.read_json("status.json")["status"] == "finished"


def test_its_student_folder_is_a_teacher_in_full_precision(place: Place, first: Artifact) -> None:
    """Another teacher, with scores of its own although the weights are the same."""
    plain = place.run("plain-weights", f"teacher.path={first.student}")
    assert texts(plain, "teacher") != texts(first, "student")


def test_an_unfinished_run_is_no_teacher(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    broken = place.run("unfinished", code=1, **{STOP_AT: "1"})
    place.run("refused", f"teacher.path={broken.run_dir}", code=1)
    assert (
        "is a run that is failed; give the directory of a finished run" in capsys.readouterr().err
    )


def test_a_run_without_its_scales_is_refused(
    place: Place, first: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder's weights, but none of the learned scales."""
    copy = place.folder / "copy"
    for name in ("config.yaml", "quantization.json", "status.json"):
        Artifact(copy).write_text(name, first.read_text(name))
    (copy / "student").mkdir()
    for file in first.student.iterdir():
        if file.name != QUANTIZERS:
            (copy / "student" / file.name).write_bytes(file.read_bytes())
    place.run("without-scales", f"teacher.path={copy}", code=1)
    assert "lacks learned scales which its quantization needs" in capsys.readouterr().err


def test_other_modules_are_refused(
    place: Place, first: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = place.folder / "other"
    for name in ("config.yaml", "status.json"):
        Artifact(copy).write_text(name, first.read_text(name))
    report = first.read_json("quantization.json")
    report["swapped"].popitem()
    Artifact(copy).write_json("quantization.json", json.loads(json.dumps(report)))
    (copy / "student").symlink_to(first.student)
    place.run("other-modules", f"teacher.path={copy}", code=1)
    assert "quantized other modules than this version does" in capsys.readouterr().err


PSEUDO = [
    "pseudo_label=teacher",
    "pseudo_label.shard_size=20",
    "pseudo_label.generation.num_beams=2",
]


def test_pseudo_labels_go_on_where_they_stopped(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped in the third of four shards; the result is that of a run that never stopped."""
    from dq_lightning.evaluation import generation

    calls = itertools.count()

    def failing(*arguments: Any) -> Any:
        if next(calls) == 2:
            raise ArithmeticError("stopped by the test")
        return generation.generate_split(*arguments)

    with mock.patch("dq_lightning.run.generate_split", failing):
        place.run("pseudo-broken", *PSEUDO, code=1)
    with mock.patch("dq_lightning.run.generate_split", wraps=generation.generate_split) as write:
        ended = place.run("pseudo-ended", *PSEUDO)
        assert write.call_count == 2
        again = place.run("pseudo-again", *PSEUDO, f"paths.cache={place.folder / 'other-cache'}")
        assert write.call_count == 2 + 4
    assert capsys.readouterr().out.count("Teacher's targets: 64 of 64  left 0:00") == 2
    torch.testing.assert_close(weights(ended), weights(again), rtol=0, atol=0)
    found = ended.read_json("metrics.json")
    counts = found["pseudo_labels"]
    assert (counts["targets"], counts["sources"]) == ("replace", 64)
    assert found["run"]["train_rows"] == 64
    for row in ended.read_jsonl("predictions.jsonl"):  # tested on the true labels
        assert row["references"] == [place.task.said(row["source"])]
    status = place.run("pseudo-plain", "pseudo_label=none").read_json("metrics.json")
    assert "pseudo_labels" not in status


def test_empty_texts_fall_back_to_labels(place: Place) -> None:
    """With a teacher that writes nothing, training is on the labels, bit for bit."""

    def nothing(model: Any, batches: Any, generator: Any) -> Any:
        return [""] * sum(len(batch["index"]) for batch in batches), 0.0

    cache = f"paths.cache={place.folder / 'cache-of-nothing'}"
    with mock.patch("dq_lightning.run.generate_split", nothing):
        empty = place.run("pseudo-empty", *PSEUDO, "pseudo_label.targets=add", cache)
    found = empty.read_json("metrics.json")["pseudo_labels"]
    assert found == {"targets": "add", "sources": 64, "empty": 64}
    plain = place.run("pseudo-none", "pseudo_label=none")
    torch.testing.assert_close(weights(empty), weights(plain), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pseudo_label.targets=mix"], "pseudo_label.targets=mix is unknown; write replace or add"),
        (["pseudo_label.shard_size=0"], "pseudo_label.shard_size=0 is no whole number from 1"),
        (
            ["teacher=none", "student=scratch", "quant=none", "distill=labels_only",
             "teacher.path=null", "student.layers=1-1"],
            "pseudo_label=teacher needs a teacher",
        ),
    ],
)  # fmt: skip
def test_pseudo_labels_that_cannot_be(
    place: Place, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place.run("pseudo-refused", "pseudo_label=teacher", *arguments, code=1)
    assert sentence in capsys.readouterr().err
