"""The packed file at a run's end: what metrics.json says of it, and when it cannot be scored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.artifacts.packed_file import read_packed
from dq_lightning.runtime import load


@pytest.fixture
def metrics(tmp_path: Path, tiny_task: Any, train: Callable[..., int]) -> Callable[..., Any]:
    def run(*arguments: str) -> dict[str, Any]:
        words = [f"hydra.run.dir={tmp_path / 'run'}", f"paths.cache={tmp_path / 'cache'}"]
        words += ["logger=none", "student.layers=2-1"]
        assert train(*tiny_task.words, *words, *arguments) == 0
        return Artifact(tmp_path / "run").read_json("metrics.json")

    return run


def test_the_file_says_what_the_student_says(metrics: Any, tmp_path: Path) -> None:
    found = metrics("packed.positions_bits=32")
    packed = found["packed"]
    assert (packed["file"], packed["engine"], packed["reason"]) == ("model.dq", "native", None)
    assert packed["identical"] >= 0.9  # sums in another order may turn a tie
    assert found["bytes"]["stored"] == packed["bytes"]
    assert found["bytes"]["stored_ratio"] == found["bytes"]["teacher"] / packed["bytes"]
    assert found["generation_seconds"]["packed"] > 0
    rows = Artifact(tmp_path / "run").read_jsonl("predictions.jsonl")
    written = load(tmp_path / "run/model.dq").generate([row["source"] for row in rows])
    same = [text.strip() == row["student"] for text, row in zip(written, rows, strict=True)]
    assert sum(same) / len(same) == packed["identical"]


def test_a_run_may_have_settings_that_its_search_does_not_read(metrics: Any) -> None:
    found = metrics("+data.generation.length_penalty=2.0", "+data.generation.temperature=0.7")
    assert found["packed"]["reason"] is None
    assert found["packed"]["identical"] is not None
    assert found["generation_seconds"]["packed"] > 0


def test_positions_take_eight_bits_unless_told_otherwise(metrics: Any, tmp_path: Path) -> None:
    packed = metrics()["packed"]
    key = "model.encoder.embed_positions.weight"
    assert read_packed(tmp_path / "run/model.dq").matrices[key].bits == 8
    assert packed["positions_bits"] == 8
    assert packed["drop"].keys() == packed["scores"].keys() == {"per", "wer"}


def test_a_recipe_that_the_engine_does_not_run_is_packed_and_told(
    metrics: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    found = metrics("quant=dq_bart", "distill=dq_bart")
    packed = found["packed"]
    assert packed["bytes"] == found["bytes"]["stored"] > 0
    assert packed["engine"] is packed["scores"] is packed["identical"] is None
    assert packed["reason"] and packed["reason"] in capfd.readouterr().out
    assert "packed" not in found["generation_seconds"]


@pytest.mark.parametrize("words", ["packed.score=false", "data.generation.do_sample=true"])
def test_what_is_not_scored_is_timed(metrics: Any, words: str) -> None:
    found = metrics(words)
    assert found["packed"]["scores"] is None
    assert found["packed"]["engine"] == "native"
    assert found["generation_seconds"]["packed"] > 0


def test_a_student_that_no_file_can_hold_leaves_none_of_an_earlier_run(
    metrics: Any, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/model.dq").write_bytes(b"an earlier run's")
    found = metrics("quantizer@quant.weight.quantizer=linear_zero_drop", "quant.bits=8")
    assert found["packed"]["file"] is None and "8 bits" in found["packed"]["reason"]
    assert not (tmp_path / "run/model.dq").exists()
