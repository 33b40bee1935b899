"""A cell is known by its config, runs once, and goes on where it was interrupted."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

import dq_lightning.run
from dq_lightning.choices import cell_id
from dq_lightning.sweeps.cell import cell_folder, run_cell

CONF = Path(__file__).parents[2] / "conf"


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=["paths.output_dir=somewhere", *overrides])


OTHER_CELLS = [
    "seed=29", "steps=1201", "quant.bits=4", "quant.bits=2-4-8", "student.layers=3-1", "quant=tbt",
    "distill.weights.task=0.5", "optimizer.lr=1e-4", "data.batch_size=64", "teacher.path=elsewhere",
    "trainer.devices=2", "averaging=none", "quant_schedule=none", "metric=rouge", "debug=fast",
]  # fmt: skip
SAME_CELL = [
    "paths.runs=elsewhere", "paths.cache=elsewhere", "logger=csv", "logger=none", "ckpt=last",
    "samples=8", "jobs=2", "sweep.on_error=stop", "sweep.rerun=true", "sweep.name=grid",
    "hydra/launcher=basic",
]  # fmt: skip


def test_every_choice_makes_another_cell() -> None:
    ids = [cell_id(composed(*overrides)) for overrides in ([], *([o] for o in OTHER_CELLS))]
    assert len(set(ids)) == len(ids)
    assert all(len(name) == 12 and int(name, 16) >= 0 for name in ids)


def test_where_and_how_it_runs_does_not_make_another_cell() -> None:
    assert {cell_id(composed(override)) for override in SAME_CELL} == {cell_id(composed())}


def test_a_value_written_out_is_the_same_as_its_default() -> None:
    assert cell_id(composed("seed=28", "student.layers=6-3")) == cell_id(composed())


def test_a_resolved_config_read_from_a_file_is_the_same_cell(tmp_path: Path) -> None:
    cfg = composed()
    values = {str(key): cfg[key] for key in cfg if key != "hydra"}
    text = OmegaConf.to_yaml(OmegaConf.create(values), resolve=False)
    assert cell_id(OmegaConf.create(text)) == cell_id(cfg)  # type: ignore[arg-type]


def test_the_folder_tells_a_person_what_it_is() -> None:
    cfg = composed("quant.bits=4", "student.layers=3-1", "paths.runs=/somewhere")
    assert cell_folder(cfg) == Path(f"/somewhere/cells/4-4-8_3-1_{cell_id(cfg)}")
    unreadable = composed("quant.bits=x/../y", "paths.runs=/somewhere")
    assert cell_folder(unreadable).parent == Path("/somewhere/cells")


class Runs:
    """Stands in for run.run: writes what a run leaves, and remembers what it was asked."""

    def __init__(self, status: str = "finished") -> None:
        self.status = status
        self.ckpts: list[str | None] = []

    def __call__(self, cfg: DictConfig) -> float:
        self.ckpts.append(cfg.ckpt)
        leave(Path(cfg.paths.output_dir), self.status)
        return 2.5


def leave(folder: Path, status: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status.json").write_text(json.dumps({"status": status}))
    metrics = {"primary_metric": "wer", "student": {"wer": 2.5}, "drop": {}}
    (folder / "metrics.json").write_text(json.dumps(metrics))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    fake = Runs()
    monkeypatch.setattr(dq_lightning.run, "run", fake)
    yield fake


def cell(folder: Path, rerun: bool = False) -> Any:
    return OmegaConf.create(
        {"paths": {"output_dir": str(folder)}, "sweep": {"rerun": rerun}, "ckpt": None}
    )


def with_checkpoint(folder: Path, status: str) -> Path:
    leave(folder, status)
    (folder / "checkpoints").mkdir()
    last = folder / "checkpoints" / "last.ckpt"
    last.touch()
    return last


def test_a_new_cell_runs_from_the_start(tmp_path: Path, runs: Runs) -> None:
    assert run_cell(cell(tmp_path)) == 2.5
    assert runs.ckpts == [None]


def test_a_finished_cell_does_not_run_again(tmp_path: Path, runs: Runs) -> None:
    with_checkpoint(tmp_path, "finished")
    assert run_cell(cell(tmp_path)) == 2.5
    assert runs.ckpts == []


def test_unless_it_is_asked_to_from_the_start(tmp_path: Path, runs: Runs) -> None:
    last = with_checkpoint(tmp_path, "finished")
    run_cell(cell(tmp_path, rerun=True))
    assert runs.ckpts == [None]
    assert not last.exists()


@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_an_interrupted_cell_goes_on(tmp_path: Path, runs: Runs, status: str) -> None:
    last = with_checkpoint(tmp_path, status)
    run_cell(cell(tmp_path))
    assert runs.ckpts == [str(last)]


def test_a_failed_cell_starts_anew(tmp_path: Path, runs: Runs) -> None:
    last = with_checkpoint(tmp_path, "failed")
    run_cell(cell(tmp_path))
    assert runs.ckpts == [None]
    assert not last.exists()


def test_a_cell_that_starts_anew_is_not_shown_where_it_once_was(tmp_path: Path, runs: Runs) -> None:
    with_checkpoint(tmp_path, "failed")
    (tmp_path / "progress.json").touch()
    run_cell(cell(tmp_path))
    assert not (tmp_path / "progress.json").exists()


@pytest.mark.parametrize(
    ("status", "resumes"), [("failed", False), ("interrupted", True), ("running", True)]
)
def test_other_ranks_start_where_rank_0_does(
    tmp_path: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch, status: str, resumes: bool
) -> None:
    """Whether they look before rank 0 has prepared the folder, or after."""
    last = with_checkpoint(tmp_path, status)
    monkeypatch.setenv("LOCAL_RANK", "1")
    run_cell(cell(tmp_path))
    assert last.exists()  # for rank 0 to remove
    leave(tmp_path, status)
    monkeypatch.setenv("LOCAL_RANK", "0")
    run_cell(cell(tmp_path))
    assert runs.ckpts == [str(last) if resumes else None] * 2


def test_other_ranks_leave_a_finished_cell_as_rank_0_does(
    tmp_path: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(tmp_path, "finished")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert run_cell(cell(tmp_path)) == 2.5
    assert runs.ckpts == []


def test_a_status_cut_off_by_a_full_disk_is_no_finished_cell(tmp_path: Path, runs: Runs) -> None:
    with_checkpoint(tmp_path, "finished")
    (tmp_path / "metrics.json").write_text('{"student": ')
    run_cell(cell(tmp_path))
    assert runs.ckpts == [None]


def test_the_same_cell_in_another_process_is_waited_for(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what the other one finished is not run again."""
    held = threading.Event()

    def finish() -> None:
        with FileLock(tmp_path / ".lock"):
            held.set()
            time.sleep(0.5)
            leave(tmp_path, "finished")

    thread = threading.Thread(target=finish)
    thread.start()
    held.wait()
    assert run_cell(cell(tmp_path)) == 2.5
    thread.join()
    assert runs.ckpts == []
    assert "Waiting for another process" in capsys.readouterr().out
