"""Shorthands of the command line, spelled out before Hydra reads it."""

from collections.abc import Sequence
from pathlib import Path


def teacher_shorthand(arguments: Sequence[str], config_dir: Path) -> list[str]:
    """`teacher=<folder or org/name>` becomes `teacher=hub teacher.path=<it>`.

    Names of files in conf/teacher stay what they are; with commas, every value must be a path.
    """
    options = {file.stem for file in (config_dir / "teacher").glob("*.yaml")}
    spelled: list[str] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        paths = [part for part in value.split(",") if part not in options]
        is_path = key == "teacher" and all("/" in p or (p and Path(p).is_dir()) for p in paths)
        if is_path and paths and len(paths) == len(value.split(",")):
            spelled += ["teacher=hub", f"teacher.path={value}"]
        else:
            spelled.append(argument)
    return spelled
