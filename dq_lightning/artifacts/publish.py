"""Takes what others need out of a run directory: its record, and its student as a folder.

    python -m dq_lightning.artifacts.publish <run dir> --record experiments/<study>/<name>.json
    python -m dq_lightning.artifacts.publish <run dir> --student <folder>

A record holds config, environment and metrics; of paths of the machine that they were made on it
keeps the last part.
"""

import argparse
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.artifacts.atomic import replace_directory

_RECORD = "training.json"
_WHERE = ("hydra.run.dir=", "hydra.sweep.dir=", "paths.")
_OF_THIS_MACHINE = ("paths", "logger", "ckpt")


def record(run_dir: Path) -> dict[str, Any]:
    """Config, environment and metrics of a finished run; ValueError for any other."""
    artifact = Artifact(run_dir)
    try:
        status = artifact.read_json("status.json")
        config = yaml.safe_load(artifact.read_text("config.yaml"))
        environment = artifact.read_json("environment.json")
        metrics = artifact.read_json("metrics.json")
    except FileNotFoundError as error:
        raise ValueError(f"{run_dir} is no whole run directory: {error.filename} lacks.") from error
    if status["status"] != "finished":
        raise ValueError(f"{run_dir} is {status['status']}; publish a finished run.")
    words = shlex.split(environment["command"])
    kept = [_without_path(word) for word in words if not word.startswith(_WHERE)]
    environment["command"] = shlex.join(kept)
    chosen = {key: value for key, value in config.items() if key not in _OF_THIS_MACHINE}
    return {
        "metrics": metrics,
        "seconds": status["seconds"],
        "environment": environment,
        "config": _without_paths(chosen),
    }


def _without_paths(value: Any) -> Any:
    """A config's value, in which paths of the machine are told by their last part."""
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    return _without_path(value) if isinstance(value, str) else value


def _without_path(word: str) -> str:
    """A path, alone or after key=, by its last part; any other word as it is."""
    key, equals, value = word.rpartition("=")
    if not value.startswith(("/", "~")):
        return word
    return key + equals + PurePath(value).name


def publish_student(run_dir: Path, folder: Path) -> None:
    """Copy the student to `folder`, with the run's record beside it as training.json.

    Replaces what was published there before; ValueError for a folder of anything else.
    """
    content = record(run_dir)
    if folder.exists() and any(folder.iterdir()) and not (folder / _RECORD).is_file():
        raise ValueError(f"{folder} holds other files than a published student; give a new folder.")
    with replace_directory(folder) as temporary:
        shutil.copytree(Artifact(run_dir).student, temporary, dirs_exist_ok=True)
        for file in temporary.iterdir():
            file.chmod(0o644)
        Artifact(temporary).write_json(_RECORD, content)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 2 with one sentence on stderr."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--record", type=Path, help="JSON file to write")
    parser.add_argument("--student", type=Path, help="folder to write")
    given = parser.parse_args(arguments)
    if not (given.record or given.student):
        parser.error("nothing to write: give --record <file>, --student <folder> or both")
    try:
        if given.record:
            Artifact(given.record.parent).write_json(given.record.name, record(given.run_dir))
        if given.student:
            publish_student(given.run_dir, given.student)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
