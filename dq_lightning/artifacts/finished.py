"""Earlier runs as input of later ones."""

from pathlib import Path

from dq_lightning.artifacts.artifact import Artifact


def finished_run(folder: str) -> Artifact | None:
    """The run directory at `folder`; None for what is none; ValueError for an unfinished run."""
    artifact = Artifact(folder)
    if not (artifact.run_dir / "status.json").is_file():
        return None
    status = artifact.read_json("status.json")["status"]
    if status != "finished":
        raise ValueError(
            f"teacher.path={folder} is a run that is {status}; give the directory of a finished "
            "run, or a folder with a model."
        )
    return artifact


def model_folder(path: Path | str) -> str:
    """The student's folder of a finished run directory; any other path as it is."""
    run = finished_run(str(path))
    return str(path) if run is None else str(run.student)
