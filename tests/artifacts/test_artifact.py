"""Whatever happens to a run, its files are whole and its status is true."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dq_lightning.artifacts import atomic
from dq_lightning.artifacts.artifact import Artifact, environment


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return Artifact(tmp_path / "run")


def names(artifact: Artifact) -> list[str]:
    return sorted(path.name for path in artifact.run_dir.iterdir())


@dataclass(frozen=True)
class Shape:
    rows: int


def test_json_round_trip_is_strict(artifact: Artifact) -> None:
    content = {
        "a": [1, math.nan, math.inf],
        2: (Path("x"), Shape(3)),
        "é": None,
    }
    artifact.write_json("sub/metrics.json", content)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = artifact.read_text("sub/metrics.json")
    assert json.loads(text, parse_constant=refuse) == {
        "a": [1, None, None],
        "2": ["x", {"rows": 3}],
        "é": None,
    }


def test_numpy_and_torch_scalars_become_numbers(artifact: Artifact) -> None:
    numpy = pytest.importorskip("numpy")
    artifact.write_json("m.json", {"a": numpy.float32(0.5), "b": numpy.int64(3)})
    assert artifact.read_json("m.json") == {"a": 0.5, "b": 3}


def test_unknown_types_are_refused_and_the_old_file_stays(artifact: Artifact) -> None:
    artifact.write_json("m.json", 1)
    with pytest.raises(TypeError):
        artifact.write_json("m.json", object())
    assert artifact.read_json("m.json") == 1
    assert names(artifact) == ["m.json"]


def test_jsonl_keeps_separators_inside_values(artifact: Artifact) -> None:
    rows = [{"text": "two\nlines\u2028and a separator"}, {"text": ""}]
    artifact.write_jsonl("predictions.jsonl", iter(rows))
    assert artifact.read_jsonl("predictions.jsonl") == rows


def test_a_link_stays_and_a_device_is_written_into(artifact: Artifact, tmp_path: Path) -> None:
    artifact.write_text("real.txt", "old")
    link = tmp_path / "link.txt"
    link.symlink_to(artifact.run_dir / "real.txt")
    atomic.write_file(link, ["new"])
    assert link.is_symlink() and artifact.read_text("real.txt") == "new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True)
    atomic.write_file(pipe, ["through ", "it"])
    assert reader.communicate()[0] == "through it"
    assert pipe.is_fifo()


def test_rows_that_raise_leave_nothing(artifact: Artifact) -> None:
    def rows() -> Iterator[int]:
        yield 1
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        artifact.write_jsonl("predictions.jsonl", rows())
    assert names(artifact) == []


def test_full_disk_leaves_the_old_file(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact.write_text("config.yaml", "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        artifact.write_text("config.yaml", "new")
    assert artifact.read_text("config.yaml") == "old"
    assert names(artifact) == ["config.yaml"]


def test_killed_writer_leaves_no_finished_file(artifact: Artifact) -> None:
    script = (
        "import os, sys; from dq_lightning.artifacts.artifact import Artifact\n"
        "def rows():\n    yield 1\n    os._exit(9)\n"
        "Artifact(sys.argv[1]).write_jsonl('predictions.jsonl', rows())"
    )
    done = subprocess.run([sys.executable, "-c", script, str(artifact.run_dir)], check=False)
    assert done.returncode == 9
    assert not (artifact.run_dir / "predictions.jsonl").exists()


def test_files_are_readable_by_others(artifact: Artifact) -> None:
    mask = os.umask(0o022)
    try:
        path = artifact.write_text("a.txt", "")
        with artifact.directory("student") as folder:
            (folder / "model").write_text("x")
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o644
    assert artifact.student.stat().st_mode & 0o777 == 0o755


def test_directory_appears_whole_and_replaces_the_old_one(artifact: Artifact) -> None:
    for content in ("first", "second"):
        with artifact.directory("student") as folder:
            (folder / "nested").mkdir()
            (folder / "nested" / "weights").write_text(content)
            (folder / content).write_text("")
            seen = artifact.student.exists()
        assert seen == (content == "second")
    assert sorted(path.name for path in artifact.student.iterdir()) == ["nested", "second"]
    assert names(artifact) == ["student"]


def test_directory_that_raises_keeps_the_old_one(artifact: Artifact) -> None:
    with artifact.directory("student") as folder:
        (folder / "weights").write_text("old")
    with pytest.raises(KeyboardInterrupt), artifact.directory("student") as folder:
        (folder / "weights").write_text("half")
        raise KeyboardInterrupt
    assert (artifact.student / "weights").read_text() == "old"
    assert names(artifact) == ["student"]


def test_failed_swap_puts_the_old_directory_back(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    with artifact.directory("student") as folder:
        (folder / "weights").write_text("old")
    rename = Path.rename

    def fails_for_the_new_one(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            raise OSError("refused")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new_one)
    with pytest.raises(OSError, match="refused"), artifact.directory("student"):
        pass
    assert (artifact.student / "weights").read_text() == "old"
    assert names(artifact) == ["student"]


def test_a_swap_cut_off_by_a_kill_is_mended_by_the_next_write(artifact: Artifact) -> None:
    (artifact.run_dir / ".student.old").mkdir(parents=True)
    (artifact.run_dir / ".student.1.ab.tmp").mkdir()
    with pytest.raises(ValueError), artifact.directory("student"):
        raise ValueError
    assert names(artifact) == ["student"]


def test_running_then_finished(artifact: Artifact) -> None:
    with artifact.running({"name": "2-2-8 6-3"}):
        status = artifact.read_json("status.json")
        assert status["status"] == "running"
        assert status["pid"] == os.getpid()
    status = artifact.read_json("status.json")
    assert status["status"] == "finished"
    assert status["cell"] == {"name": "2-2-8 6-3"}
    assert status["ended"] >= status["started"]
    assert status["seconds"] >= 0
    assert "error" not in status


@pytest.mark.parametrize(
    ("error", "line", "ended"),
    [
        (ValueError("one\n two"), "ValueError: one two", "failed"),
        (KeyboardInterrupt(), "KeyboardInterrupt", "interrupted"),
        (SystemExit(3), "SystemExit: 3", "failed"),
        (SystemExit(143), "SystemExit: 143", "interrupted"),
        (SystemExit(-1), "SystemExit: -1", "interrupted"),
    ],
)
def test_anything_raised_is_recorded_and_raised_again(
    artifact: Artifact, error: BaseException, line: str, ended: str
) -> None:
    with pytest.raises(type(error)) as caught, artifact.running():
        raise error
    assert caught.value is error
    assert error.run_dir == artifact.run_dir  # type: ignore[attr-defined]
    status = artifact.read_json("status.json")
    assert status["status"] == ended
    assert status["error"] == line
    assert "test_artifact.py" in status["traceback"]


def test_a_refused_run_leaves_the_finished_run_of_its_folder_as_it_was(artifact: Artifact) -> None:
    with pytest.raises(ValueError, match="bits"), artifact.checking({"name": "9-9-8 6-3"}):
        raise ValueError("bits")
    status = artifact.read_json("status.json")
    assert (status["status"], status["error"]) == ("failed", "ValueError: bits")
    assert status["cell"] == {"name": "9-9-8 6-3"}
    with artifact.running():
        pass
    finished = artifact.read_text("status.json")
    with pytest.raises(ValueError, match="bits") as caught, artifact.checking():
        raise ValueError("bits")
    assert artifact.read_text("status.json") == finished
    assert caught.value.run_dir == artifact.run_dir  # type: ignore[attr-defined]


def test_lightnings_exit_after_control_c_says_so(artifact: Artifact) -> None:
    with pytest.raises(SystemExit), artifact.running():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)
    status = artifact.read_json("status.json")
    assert (status["status"], status["error"]) == ("interrupted", "KeyboardInterrupt")


def test_full_disk_does_not_hide_the_runs_own_error(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ValueError, match="mine"), artifact.running():
        monkeypatch.setattr(atomic.os, "fsync", full)
        raise ValueError("mine")
    assert artifact.read_json("status.json")["status"] == "running"


def test_environment_names_what_figures_depend_on() -> None:
    found = environment(seed=3, device="cpu")
    assert found["seed"] == 3
    assert found["device"] == "cpu"
    assert found["packages"]["torch"] is not None
    assert found["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert set(found) >= {"git_sha", "git_dirty", "platform", "cpu_count", "command"}
    json.dumps(found, allow_nan=False)


def test_environment_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = environment()
    assert found["git_sha"] is None
    assert found["git_dirty"] is None


def test_artifacts_and_reports_need_no_torch() -> None:
    script = (
        "import sys, dq_lightning.artifacts.artifact, dq_lightning.reporting.__main__\n"
        "heavy = {'torch', 'transformers', 'pytorch_lightning', 'hydra', 'omegaconf', 'pandas'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
