"""A cell's process ends with the sweep that started it, and runs by hand as well."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CODE = """
import sys, time
from dq_lightning.sweeps import cell, job

def run_cell(cfg):
    time.sleep(0.5)
    print("done", flush=True)

cell.run_cell = run_cell
job.main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("given", "code", "out"),
    [({"input": ""}, 143, ""), ({"stdin": subprocess.DEVNULL}, 0, "done\n")],
    ids=["a pipe that is closed at once", "/dev/null, which cron gives"],
)
def test_it_ends_with_the_pipe_of_its_parent(
    given: dict[str, Any], code: int, out: str, tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text("paths: {}\n")
    command = [sys.executable, "-c", CODE, str(tmp_path / "job.yaml")]
    more = {"capture_output": True, "text": True, "start_new_session": True}
    done = subprocess.run(command, check=False, **given, **more)
    assert (done.returncode, done.stdout) == (code, out), done.stderr
