"""``python -m dq_lightning.artifacts.pack <run dir>``: the student of a finished run as one file.

model.dq holds packed weights, quantizers, generation settings, tokenizer and model card; a runtime
needs nothing else (packed_format.md beside this file describes it).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.artifacts.packed_run import PACKED, pack_run_student
from dq_lightning.artifacts.packed_table import print_packed
from dq_lightning.artifacts.student_folder import load_quantizers
from dq_lightning.choices import build_recipe, plain
from dq_lightning.data.languages import language_settings, set_languages
from dq_lightning.errors import one_sentence_errors
from dq_lightning.models.family import ModelFamily, family_of
from dq_lightning.models.teacher import load_config, load_teacher
from dq_lightning.quantization.prepare import prepare


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the file and print what is in it, or one sentence on stderr and exit with 1."""
    parser = argparse.ArgumentParser("python -m dq_lightning.artifacts.pack", description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"default: {PACKED} in the run")
    parser.add_argument(
        "--positions",
        type=int,
        choices=(8, 32),
        help="bits of learned position embeddings (default: as the run packed them)",
    )
    given = parser.parse_args(arguments)
    disable_progress_bar()
    with one_sentence_errors(Path.cwd() / "conf", "train"):
        path: Path = given.output or given.run_dir / PACKED
        if path.is_dir():
            raise ValueError(f"--output {path} is a folder; give a file in it.")
        run = _finished(given.run_dir)
        metrics = run.read_json("metrics.json")
        ran = metrics.get("packed") or {}
        positions = given.positions or ran.get("positions_bits") or 8
        if given.output is None and ran.get("file") and positions != ran["positions_bits"]:
            raise ValueError(
                f"metrics.json of {given.run_dir} describes its {PACKED} with positions of "
                f"{ran['positions_bits']} bits; give another file for these, --output <file>."
            )
        packed, size = _pack(run, path, metrics, positions)
        print_packed(packed, size, (metrics.get("bytes") or {}).get("teacher"))
        print(f"Packed student: {path}")


def _finished(run_dir: Path) -> Artifact:
    """The run directory; ValueError for a run that has not finished, and for what is none."""
    artifact = Artifact(run_dir)
    if not (run_dir / "status.json").is_file():
        raise ValueError(f"{run_dir} is no run directory: it has no status.json.")
    status = artifact.read_object("status.json").get("status", "unreadable")
    if status != "finished":
        raise ValueError(f"{run_dir} is a run that is {status}; pack a finished one.")
    return artifact


def _pack(run: Artifact, path: Path, metrics: dict[str, Any], positions_bits: int) -> Any:
    cfg: Any = OmegaConf.create(run.read_text("config.yaml"))
    student, family, tokenizer = _load(run, cfg)
    config = plain(cfg)
    chosen: dict[str, Any] = config["data"]["generation"]
    given = {key: value for key, value in chosen.items() if value is not None}
    return pack_run_student(
        path,
        student,
        family,
        tokenizer,
        generation={**language_settings(tokenizer), **given},
        config=config,
        metrics=metrics,
        positions_bits=positions_bits,
    )


def _load(
    run: Artifact, cfg: DictConfig
) -> tuple[PreTrainedModel, ModelFamily, PreTrainedTokenizerBase]:
    """The student in float32, quantized as its run did."""
    recipe = build_recipe(cfg.quant)
    folder = str(run.student)
    try:
        family = family_of(load_config(folder))
        student, tokenizer = load_teacher(folder, family)
    except ValueError as error:
        raise ValueError(f"The student of {run.run_dir} cannot be loaded: {error}") from error
    set_languages(tokenizer, cfg.data.source_language, cfg.data.target_language)
    swapped = prepare(student, recipe, family).swapped
    if swapped.keys() != run.read_json("quantization.json")["swapped"].keys():
        raise ValueError(
            f"{run.run_dir} quantized other modules than this version does; repeat that run."
        )
    load_quantizers(student, run.student)
    return student.eval(), family, tokenizer


if __name__ == "__main__":
    main()
