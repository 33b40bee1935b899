"""How a checkpoint gets to the disk: whole, or not at all."""

import os
from pathlib import Path
from typing import Any, final

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO


@final
class WholeFiles(TorchCheckpointIO):
    """Writes beside the old file, syncs and renames: a kill or a power cut leaves one of the two.

    Lightning's own writes below the system's temporary folder and moves the file from there: where
    that is another disk, a kill cuts the only checkpoint off, and any kill leaves a file there.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")  # of a killed process: replaced
        try:
            with partial.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
