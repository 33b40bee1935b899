"""``python -m dq_lightning.benchmarks.size [key=value ...]``: a student's sizes as a table.

The keys are those of train.py, read from ./conf: run it where train.py lies. Of them it reads
teacher, student and quant. teacher is an option of conf/teacher (bart_base has a shape and no
weights), a hub name or a folder; only its config is read. With --packed a student with random
weights is really quantized and packed, without a tokenizer. The two packed sizes hold what is not
quantized (biases, norms, whole matrices at 32 bits) as a run with that student.save_dtype stores
it: in float32 unless float16 is written. The other sizes count it in fp32 always.
"""

import argparse
import contextlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedConfig

from dq_lightning.artifacts.artifact import Artifact, environment
from dq_lightning.artifacts.finished import model_folder
from dq_lightning.benchmarks.packed_size import write_random_student
from dq_lightning.benchmarks.size import as_evaluated_bytes, meta_model, nominal_bytes, packed_bytes
from dq_lightning.choices import (
    build_recipe,
    cell_columns,
    chosen_layers,
    chosen_narrowing,
    chosen_save_dtype,
    plain,
)
from dq_lightning.errors import one_sentence_errors
from dq_lightning.models.family import ModelFamily, family_of
from dq_lightning.models.layer_mapping import layer_mapping
from dq_lightning.models.narrowing import narrow_config
from dq_lightning.models.teacher import load_config, resolve_path
from dq_lightning.quantization.recipe import Bits
from dq_lightning.sweeps.overrides import teacher_shorthand


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, or one sentence on stderr and exit with 1."""
    parser = argparse.ArgumentParser("python -m dq_lightning.benchmarks.size", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for train.py")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the bytes there as well")
    parser.add_argument("--packed", type=Path, metavar="FILE", help="pack random weights into it")
    given = parser.parse_args(arguments)
    overrides: list[str] = given.overrides
    folder = Path.cwd() / "conf"
    with one_sentence_errors(folder, "train"):
        if not (folder / "train.yaml").is_file():
            raise ValueError(
                f"There is no config tree at {folder}; run this in the repository's root, where "
                "train.py and conf/ are."
            )
        with initialize_config_dir(str(folder), version_base="1.3"):
            cfg = compose("train", teacher_shorthand(overrides, folder))
        title, rows = sizes(cfg)
        if given.packed:
            rows[f"{given.packed}, random weights"] = pack_random_weights(cfg, given.packed)
        if given.json:
            content = size_record(cfg, rows, overrides)
            Artifact(given.json.parent).write_json(given.json.name, content)
        print_sizes(title, rows)


def sizes(cfg: DictConfig) -> tuple[str, dict[str, int]]:
    """A title, and bytes by each rule; the first is the whole teacher in fp32.

    The last, of a packed file, lacks for a recipe whose codes no packed file can hold.
    """
    config, tied = teacher_config(cfg.teacher)
    family = family_of(config)
    recipe, layers = build_recipe(cfg.quant), chosen_layers(cfg.student)
    whole = family.num_layers(config)
    layer_mapping(layers, whole)  # refuses more layers than the teacher has
    narrowing = chosen_narrowing(cfg.student)
    student = meta_model(narrow_config(config, family, narrowing), family, layers, tied)
    nominal = nominal_bytes(student, recipe.bits, family, recipe.exclude)
    teacher = nominal_bytes(meta_model(config, family, whole, tied), Bits(32, 32, 32), family)
    chosen = " ".join([str(recipe.bits), f"{layers[0]}-{layers[1]}", *narrowing.words()])
    rows = {
        "teacher, fp32": teacher.full_precision_bytes,
        "nominal, published accounting": nominal.published_bytes,
        "nominal, reference code's rule": nominal.reference_rule_bytes,
        "as evaluated, head in fp32": as_evaluated_bytes(
            student, recipe.bits, family, recipe.exclude
        ),
    }
    estimate = f"packed, head {recipe.head}, before compression"
    save_dtype = _save_dtype(cfg)
    with contextlib.suppress(ValueError):  # codes that no packed file can hold: no such size
        rows[estimate] = packed_bytes(student, recipe, family, save_dtype)
    return f"{family.name} {whole[0]}-{whole[1]} as {chosen}", rows


def pack_random_weights(cfg: DictConfig, path: Path) -> int:
    """Write a packed student of the config's shape and recipe; its bytes on disk."""
    config, tied = teacher_config(cfg.teacher)
    family = family_of(config)
    narrowed = narrow_config(config, family, chosen_narrowing(cfg.student))
    recipe, layers = build_recipe(cfg.quant), chosen_layers(cfg.student)
    return write_random_student(path, narrowed, family, layers, recipe, tied, _save_dtype(cfg))


def _save_dtype(cfg: DictConfig) -> torch.dtype:
    return getattr(torch, chosen_save_dtype(cfg.student))


def size_record(
    cfg: DictConfig, rows: Mapping[str, int], overrides: Sequence[str]
) -> dict[str, Any]:
    """What `--json` writes: bytes by rule under lasting names, and what they were counted with.

    stored: those on disk, where a file was packed. saved_buffers: bytes of the buffers in the
    student's state dict, which no rule counts (BART's final_logits_bias).
    """
    config, tied = teacher_config(cfg.teacher)
    student = meta_model(config, family_of(config), chosen_layers(cfg.student), tied)
    parameters = {id(parameter) for parameter in student.parameters()}
    tensors = student.state_dict(keep_vars=True).values()
    buffers = sum(t.numel() * t.element_size() for t in tensors if id(t) not in parameters)
    names = ("teacher", "nominal", "reference_rule", "as_evaluated", "packed", "stored")
    made = environment()
    command = ["python", "-m", "dq_lightning.benchmarks.size", *overrides]
    return {
        "cell": cell_columns(cfg),
        "bytes": {**dict(zip(names, rows.values(), strict=False)), "saved_buffers": buffers},
        "environment": {key: made[key] for key in ("git_sha", "git_dirty", "packages")}
        | {"command": shlex.join(command)},
    }


def teacher_config(teacher: DictConfig) -> tuple[PreTrainedConfig, bool]:
    """The teacher's config, and whether its head is tied to an embedding."""
    if teacher.get("config") is not None:
        shape = plain(teacher.config)
        return AutoConfig.for_model(**shape), shape.get("tie_word_embeddings", True)
    if teacher.path is None:
        raise ValueError(
            "teacher=none has no size; write teacher=<hub name or folder>, or teacher=bart_base."
        )
    path = model_folder(resolve_path(teacher.path))
    config = load_config(path, teacher.revision)
    return config, _is_tied(path, config, teacher.revision, family_of(config))


def _is_tied(path: str, config: Any, revision: str | None, family: ModelFamily) -> bool:
    """By the names of a folder's weights, else by its config file.

    T5's config classes say "tied" whatever the file says, so the file itself is read.
    """
    files = sorted(Path(path).glob("*.safetensors")) if Path(path).is_dir() else []
    if not files:
        raw, _ = type(config).get_config_dict(path, revision=revision)
        return raw.get("tie_word_embeddings", True) is not False
    names: set[str] = set()
    for file in files:
        with safe_open(file, framework="pt") as weights:
            names |= set(weights.keys())
    return f"{family.head}.weight" not in names


def print_sizes(title: str, rows: Mapping[str, int], console: Console | None = None) -> None:
    """One line a rule: bytes, and how many times smaller than the teacher."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("")
    table.add_column("bytes", justify="right", no_wrap=True)
    table.add_column("ratio", justify="right", no_wrap=True)
    teacher = next(iter(rows.values()))
    for name, size in rows.items():
        table.add_row(name, f"{size:,}", f"{teacher / size:.2f}x")
    (console or Console(file=sys.stdout)).print(table)
