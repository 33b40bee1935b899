"""`python train.py -m ...` in a process of its own: every cell runs, one report tells of all."""

import csv
import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.models import bart
from dq_lightning.models.student import student_from_scratch

ROOT = Path(__file__).parent.parent
COLUMNS = (
    "cell weight_bits embedding_bits activation_bits encoder_layers decoder_layers status "
    "wer per wer_drop per_drop nominal_bytes ratio"
).split()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of a tiny task: a random teacher of 2-2 layers and a made-up dictionary."""
    folder = tmp_path_factory.mktemp("task")
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    more = {"decoder_start_token_id": 1, "forced_eos_token_id": None}
    tokenizer = build_g2p_tokenizer()
    model = student_from_scratch(bart.FAMILY, tokenizer, 2, 2, sizes | heads | more)
    model.save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")
    words = (f"{a}{v}{b}" for a, v, b in itertools.product("bdfgkmst", "aeiou", "bdfgkmst"))
    (folder / "words.dict").write_text("".join(f"{word} B AA D\n" for word in words))
    return [
        f"teacher.path={folder / 'teacher'}",
        f"data.path={folder / 'words.dict'}",
        f"paths.cache={folder / 'cache'}",
        "trainer.accelerator=cpu",
        "logger=csv",
        "debug=fast",
    ]


@dataclass(frozen=True)
class Swept:
    """A sweep that ended: its exit code, what it printed, its folder and its report."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def report(self) -> str:
        return (self.folder / "report.md").read_text()

    @property
    def header(self) -> list[str]:
        return (self.folder / "report.csv").read_text().splitlines()[0].split(",")

    @property
    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "report.csv").open() as lines:
            return list(csv.DictReader(lines))


def sweep(folder: Path, *arguments: str) -> Swept:
    command = [sys.executable, "train.py", "-m", *arguments, f"hydra.sweep.dir={folder}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return Swept(done.returncode, done.stdout, done.stderr, folder)


@pytest.fixture(scope="module")
def two_cells(task: list[str], tmp_path_factory: pytest.TempPathFactory) -> Swept:
    return sweep(tmp_path_factory.mktemp("two"), "quant.bits=2,8", "student.layers=1", *task)


@pytest.fixture(scope="module")
def one_fails(task: list[str], tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """The failing cell comes first, so that the other one runs after it."""
    return sweep(tmp_path_factory.mktemp("fails"), "student.layers=9,1", *task)


def test_two_cells_end_with_two_rows(two_cells: Swept) -> None:
    assert two_cells.code == 0, two_cells.err
    assert two_cells.header[: len(COLUMNS)] == COLUMNS
    first, second = two_cells.rows
    assert [row["cell"] for row in (first, second)] == ["2-2-8 1-1", "8-8-8 1-1"]
    for row, bits in ((first, "2"), (second, "8")):
        assert row["status"] == "finished"
        named = [row[name] for name in COLUMNS[1:6]]
        assert named == [bits, bits, "8", "1", "1"]
        assert all(row[name] for name in COLUMNS)
    assert int(first["nominal_bytes"]) < int(second["nominal_bytes"])
    assert float(first["ratio"]) > float(second["ratio"]) > 1


def test_the_sweep_ends_with_its_table(two_cells: Swept) -> None:
    end = two_cells.out[two_cells.out.rindex("Run directory: ") :]
    for word in ("teacher", "2-2-8 1-1", "8-8-8 1-1", f"Report: {two_cells.folder / 'report.md'}"):
        assert word in end
        assert word in f"{two_cells.report} Report: {two_cells.folder / 'report.md'}"
    assert "2 finished" in two_cells.report
    assert "Traceback" not in two_cells.err


def test_every_cell_has_its_artifact_and_the_teacher_was_evaluated_once(
    two_cells: Swept, task: list[str]
) -> None:
    runs = sorted(path.parent for path in two_cells.folder.glob("*/metrics.json"))
    assert [run.name for run in runs] == ["0", "1"]
    first, second = (json.loads((run / "metrics.json").read_text()) for run in runs)
    assert first["teacher"] == second["teacher"]
    (cache,) = (Path(text.partition("=")[2]) for text in task if text.startswith("paths.cache"))
    assert len(list((cache / "evaluations").glob("*.json"))) == 2  # validation and test


def test_a_failing_cell_costs_only_itself(one_fails: Swept) -> None:
    assert one_fails.code == 1
    finished, failed = one_fails.rows
    assert (finished["cell"], finished["status"]) == ("2-2-8 1-1", "finished")
    assert (failed["cell"], failed["status"]) == ("2-2-8 9-9", "failed")
    assert failed["encoder_layers"] == "9"
    assert failed["wer"] == ""
    assert one_fails.header[: len(COLUMNS)] == COLUMNS


def test_the_report_lists_the_failure(one_fails: Swept) -> None:
    assert "1 finished, 1 failed" in one_fails.report
    failures = one_fails.report.partition("## Failed cells")[2]
    for text in (failures, one_fails.out):
        assert "2-2-8 9-9" in text
        assert "write student.layers=2 or fewer." in text
    assert "0/status.json" in failures


def test_a_failed_sweep_says_which_cell_in_two_lines(one_fails: Swept) -> None:
    lines = one_fails.err.splitlines()
    assert any("student.layers=9" in line for line in lines)
    assert "write student.layers=2 or fewer." in lines[-2]
    assert "Traceback" not in one_fails.err
