"""One cell in a process of its own: ``python -m dq_lightning.sweeps.job <run dir>/job.yaml``.

The file holds the resolved config, so whatever is edited meanwhile changes nothing here. The
process ends when its parent closes the pipe it gave as standard input, or dies.
"""

import logging
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import OmegaConf

_SECONDS_TO_LEAVE = 8.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cell; an error leaves its traceback here and in the cell's status.json."""
    (file,) = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _leave)
    if stat.S_ISFIFO(os.fstat(0).st_mode):  # of a sweep; by hand a terminal, under cron /dev/null
        threading.Thread(target=_end_with_parent, args=(0,), daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    cfg: Any = OmegaConf.load(Path(file))
    OmegaConf.set_struct(cfg, True)
    from dq_lightning.sweeps.cell import run_cell

    run_cell(cfg)


def _leave(number: int, frame: Any) -> NoReturn:
    raise SystemExit(128 + number)


def _end_with_parent(pipe: int) -> None:
    """Wait for the end of the pipe; then leave in order, or at once after some seconds."""
    while os.read(pipe, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_LEAVE)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
