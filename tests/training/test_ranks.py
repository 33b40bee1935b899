"""The processes that a run starts know each other, whatever else the environment speaks of."""

import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl

from dq_lightning.training.ranks import Ranks, cluster

SLURM = {"NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NAME": "x"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("job", [{}, SLURM], ids=["plain", "a Slurm job of one task"])
def test_the_starter_counts_those_it_started(
    job: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's own choice in a Slurm job is one process a task: rank 0 would train alone."""
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with Ranks([sys.executable, "-c", "pass"], 2, tmp_path / "ranks", print):
        trainer = pl.Trainer(
            accelerator="cpu", devices=2, strategy="ddp", plugins=cluster(), logger=False,
            enable_checkpointing=False, enable_progress_bar=False,
        )  # fmt: skip
        assert (trainer.world_size, trainer.global_rank) == (2, 0)
