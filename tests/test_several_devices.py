"""Two processes on the CPU train one run: the same numbers, one set of files, and a common end."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load_file

from dq_lightning.artifacts.artifact import Artifact

TinyTask = Any  # of conftest.py
ROOT = Path(__file__).parents[1]
# What a sweep's job does: no Hydra in the process.
JOB = "import sys; from omegaconf import OmegaConf; from dq_lightning.run import run; "
JOB += "run(OmegaConf.load(sys.argv[1]))"
PROBE = '''
import hashlib, os, pathlib, signal, time
import pytorch_lightning as pl

class Probe(pl.Callback):
    """Writes what this rank holds at the end; PROBE="rank step what" breaks it off there."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def on_train_batch_start(self, trainer, module, *_):
        (self.folder / f"pid{trainer.global_rank}").write_text(str(os.getpid()))
        rank, step, what = os.environ.get("PROBE", "- - -").split()
        if (rank, step) != (str(trainer.global_rank), str(trainer.global_step)):
            return
        (self.folder / what).touch()
        if what == "error":
            raise ArithmeticError("stopped by the test")
        if what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "waiting":
            time.sleep(600)

    def on_validation_end(self, trainer, module):
        scores = sorted((k, float(v)) for k, v in trainer.callback_metrics.items() if "val" in k)
        with open(self.folder / f"scores{trainer.global_rank}", "a") as file:
            print(scores, len(module.predictions), file=file)

    def on_train_end(self, trainer, module):
        digest = hashlib.sha256()
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        (self.folder / f"weights{trainer.global_rank}").write_text(digest.hexdigest())
'''
SHARDED = '''
import torch
from pytorch_lightning.strategies import FSDPStrategy
from torch.distributed.fsdp import (
    FullOptimStateDictConfig, FullStateDictConfig, FullyShardedDataParallel, StateDictType
)

class CpuFSDP(FSDPStrategy):
    """Shards on the CPU, which Lightning and FSDP refuse unless they are told so."""

    def _setup_model(self, model):
        device = torch.device("cpu")
        return FullyShardedDataParallel(module=model, device_id=device, **self.kwargs)

    def lightning_module_state_dict(self):
        # "offloaded" from the CPU to the CPU, tensors would be views of memory that is freed
        config = FullStateDictConfig(offload_to_cpu=False, rank0_only=False)
        more = FullOptimStateDictConfig(offload_to_cpu=False, rank0_only=False)
        kind = StateDictType.FULL_STATE_DICT
        with FullyShardedDataParallel.state_dict_type(self.model, kind, config, more):
            return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
'''


@dataclass(frozen=True)
class Place:
    folder: Path
    task: TinyTask

    def words(self, name: str, *more: str) -> list[str]:
        probe = self.folder / f"{name}-probe"
        probe.mkdir(exist_ok=True)
        return [
            *self.task.words, "validations=2", "student.layers=2-1", "logger=csv",
            "data.generation.max_new_tokens=12", "data.eval_batch_size=5",
            f"paths.runs={self.folder / 'runs'}", f"paths.cache={self.folder / 'cache'}",
            "+callbacks.probe._target_=ddp_probe.Probe", f"+callbacks.probe.folder={probe}", *more,
        ]  # fmt: skip

    def start(self, command: list[str], probe: str = "- - -") -> subprocess.Popen[str]:
        more = {"PYTHONPATH": f"{self.folder}:{ROOT}", "OMP_NUM_THREADS": "1", "PROBE": probe}
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | more, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def job(self, name: str, *more: str, probe: str = "- - -") -> subprocess.Popen[str]:
        """A run from a resolved config, as a sweep's launcher starts it."""
        run_dir = self.folder / "runs" / name
        words = [*self.words(name, *more), f"paths.output_dir={run_dir}"]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose("train", words)
        file = self.folder / f"{name}.yaml"
        file.write_text(OmegaConf.to_yaml(cfg, resolve=True))
        return self.start([sys.executable, "-c", JOB, str(file)], probe)

    def pid(self, name: str, rank: int) -> int:
        return int((self.folder / f"{name}-probe" / f"pid{rank}").read_text())

    def told(self, name: str, what: str) -> list[str]:
        return [(self.folder / f"{name}-probe" / f"{what}{rank}").read_text() for rank in (0, 1)]


@pytest.fixture(scope="module")
def place(tiny_task: TinyTask, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("place")
    (folder / "ddp_probe.py").write_text(PROBE)
    (folder / "cpu_fsdp.py").write_text(SHARDED)
    return Place(folder, tiny_task)


def finished(process: subprocess.Popen[str], code: int = 0) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return err if code else out


def gone(pid: int, within: float = 10.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def one(place: Place) -> Artifact:
    """One process, two batches a step."""
    more = ["trainer.accelerator=cpu", "trainer.accumulate_grad_batches=2"]
    finished(place.job("one", *more))
    return Artifact(place.folder / "runs" / "one")


@pytest.fixture(scope="module")
def two(place: Place) -> tuple[Artifact, str]:
    """Two processes, a batch each, from the command line."""
    run_dir = place.folder / "runs" / "two"
    words = [*place.words("two", "trainer=ddp_cpu"), f"hydra.run.dir={run_dir}"]
    return Artifact(run_dir), finished(place.start([sys.executable, "train.py", *words]))


def test_two_processes_train_what_one_does_with_two_batches(
    one: Artifact, two: tuple[Artifact, str]
) -> None:
    """Bit for bit: (a + b) / 2 is a / 2 + b / 2 in binary."""
    files = [artifact.student / "model.safetensors" for artifact in (one, two[0])]
    torch.testing.assert_close(*map(load_file, files), rtol=0, atol=0)
    mine, other = (
        torch.load(artifact.checkpoints / "last.ckpt", weights_only=False)
        for artifact in (one, two[0])
    )
    for saved in (mine, other):
        saved["optimizer_states"] = [each["state"] for each in saved["optimizer_states"]]
    for name in ("state_dict", "current_model_state", "optimizer_states"):  # the average, too
        torch.testing.assert_close(mine[name], other[name], rtol=0, atol=0)
    assert one.read_jsonl("predictions.jsonl") == two[0].read_jsonl("predictions.jsonl")


def test_both_ranks_hold_the_same_and_score_all_rows(
    place: Place, one: Artifact, two: tuple[Artifact, str]
) -> None:
    first, second = place.told("two", "weights")
    assert first == second
    scores, others = (text.splitlines() for text in place.told("two", "scores"))
    alone = (place.folder / "one-probe" / "scores0").read_text().splitlines()
    assert len(scores) == 2
    for left, right, whole in zip(scores, others, alone, strict=True):
        assert left.rsplit(" ", 1)[0] == right.rsplit(" ", 1)[0] == whole.rsplit(" ", 1)[0]
        counts = [int(line.rsplit(" ", 1)[1]) for line in (left, right, whole)]
        assert counts[0] + counts[1] == counts[2] == 16  # each row in one share


def test_one_run_directory_and_one_of_everything(place: Place, two: tuple[Artifact, str]) -> None:
    artifact, out = two
    assert artifact.read_json("status.json")["status"] == "finished"
    assert artifact.read_json("status.json")["pid"] == place.pid("two", 0)
    assert [folder.name for folder in artifact.logs.iterdir()] == ["0"]
    assert not list(artifact.run_dir.glob("ranks*"))
    assert {path.name for path in artifact.run_dir.parent.iterdir()} <= {"one", "two"}
    for line in ("step 4: validation", "Student on test", "Run directory: "):
        assert out.count(line) == 1
    assert gone(place.pid("two", 1), within=0.2)


def test_an_error_in_one_rank_is_the_runs_error(place: Place) -> None:
    process = place.job("error", "trainer=ddp_cpu", probe="1 1 error")
    err = finished(process, code=1)
    assert "stopped by the test" in err
    status = Artifact(place.folder / "runs" / "error").read_json("status.json")
    assert status["status"] == "failed"
    assert status["error"].endswith(
        "Rank 1 of the training failed: ArithmeticError: stopped by the test"
    )
    assert "on_train_batch_start" in status["traceback"]  # of rank 1
    assert gone(place.pid("error", 1))


def test_sigterm_ends_all_ranks_even_one_that_hangs(place: Place) -> None:
    """Rank 1 sleeps, so rank 0 waits in a collective, where no Python handler runs."""
    process = place.job("hangs", "trainer=ddp_cpu", probe="1 1 waiting")
    deadline = time.monotonic() + 200
    while not (place.folder / "hangs-probe" / "waiting").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    time.sleep(1)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    finished(process, code=143)
    assert time.monotonic() - began < 15
    status = json.loads((place.folder / "runs" / "hangs" / "status.json").read_text())
    assert status["status"] != "running"
    assert "SystemExit" in status["error"]
    assert gone(place.pid("hangs", 1))


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_run(place: Place) -> None:
    finished(place.job("killed", "trainer=ddp_cpu", probe="1 1 killed"), code=1)
    status = Artifact(place.folder / "runs" / "killed").read_json("status.json")
    assert status["status"] == "failed"
    assert "exit code -9" in status["error"]


@pytest.mark.slow
def test_other_ranks_end_with_one_that_is_killed(place: Place) -> None:
    place.job("leaves", "trainer=ddp_cpu", probe="0 1 killed").communicate(timeout=300)
    assert gone(place.pid("leaves", 1))


@pytest.mark.slow
def test_learned_scales_are_the_same_on_both_ranks(place: Place) -> None:
    learned = ["quant=lsq", "averaging=none", "quant_schedule=none"]
    finished(place.job("learned", "trainer=ddp_cpu", *learned))
    first, second = place.told("learned", "weights")
    assert first == second


@pytest.mark.slow
def test_resumed_equals_unbroken(place: Place, two: tuple[Artifact, str]) -> None:
    finished(place.job("resumed", "trainer=ddp_cpu", probe="0 2 error"), code=1)
    finished(place.job("resumed", "trainer=ddp_cpu", "ckpt=last"))
    resumed = Artifact(place.folder / "runs" / "resumed")
    files = [artifact.student / "model.safetensors" for artifact in (resumed, two[0])]
    torch.testing.assert_close(*map(load_file, files), rtol=0, atol=0)
    first, second = place.told("resumed", "weights")
    assert first == second


@pytest.mark.slow
def test_sharded_processes_train_what_one_does(place: Place) -> None:
    """Strong weight decay, which flattened weights would not get: groups go by the shape."""
    more = ["averaging=none", "quant=ternary", "optimizer.weight_decay=1"]
    sharded = ["~trainer.strategy", "+trainer.strategy._target_=cpu_fsdp.CpuFSDP"]
    one = [*more, "trainer.accelerator=cpu", "trainer.accumulate_grad_batches=2"]
    finished(place.job("plain", *one))
    finished(place.job("sharded", "trainer=ddp_cpu", *more, *sharded))
    runs = place.folder / "runs"
    files = (Artifact(runs / name).student / "model.safetensors" for name in ("plain", "sharded"))
    plain, whole = map(load_file, files)
    for name, weight in plain.items():
        if not name.endswith(
            "k_proj.bias"
        ):  # its gradient is 0 but for rounding, which Adam scales
            torch.testing.assert_close(weight, whole[name], rtol=0, atol=1e-4, msg=name)
