"""A checkpoint on disk is whole at any moment, whichever disk the temporary files lie on."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from dq_lightning.training.checkpoint_files import WholeFiles


class Killed(BaseException):
    """In the middle of a write."""


def load(file: Path) -> Any:
    return torch.load(file, weights_only=True)


@pytest.fixture
def another_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is renamed from folder to folder, and a copy of a file is killed half-way."""
    replace = os.replace

    def within_a_folder(source: Any, target: Any, **kwargs: Any) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(source, target, **kwargs)

    def half(source: Any, target: Any, **kwargs: Any) -> None:
        content = Path(source).read_bytes()
        Path(target).write_bytes(content[: len(content) // 2])
        raise Killed

    monkeypatch.setattr(os, "rename", within_a_folder)
    monkeypatch.setattr(os, "replace", within_a_folder)
    monkeypatch.setattr(shutil, "copyfile", half)


def test_the_folder_needs_no_disk_but_its_own(tmp_path: Path, another_disk: None) -> None:
    file = tmp_path / "new" / "last.ckpt"
    WholeFiles().save_checkpoint({"step": 1}, file)
    WholeFiles().save_checkpoint({"step": 2}, file)
    assert load(file) == {"step": 2}
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_lightnings_own_is_cut_off(tmp_path: Path, another_disk: None) -> None:
    """Once this fails, `WholeFiles` has had its day."""
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"old")
    with pytest.raises(Killed):
        TorchCheckpointIO().save_checkpoint({"step": 1}, file)
    with pytest.raises(Exception, match=r".*"):
        load(file)


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "last.ckpt"
    WholeFiles().save_checkpoint({"step": 1}, file)

    def full(checkpoint: Any, stream: Any) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(torch, "save", full)
        WholeFiles().save_checkpoint({"step": 2}, file)
    assert load(file) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_killed_writers_leftover_goes(tmp_path: Path) -> None:
    (tmp_path / ".last.ckpt.partial").write_bytes(b"half")
    WholeFiles().save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
