"""What a latency benchmark is about: a packed file, or random weights of a shape."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from dq_lightning.artifacts.dequantized import dequantized_model
from dq_lightning.artifacts.finished import model_folder
from dq_lightning.artifacts.packed_file import read_packed, write_packed
from dq_lightning.artifacts.packed_student import PackedStudent, pack_student
from dq_lightning.benchmarks.contender import Subject
from dq_lightning.benchmarks.size_command import teacher_config
from dq_lightning.choices import build_recipe, chosen_layers
from dq_lightning.models.family import ModelFamily, family_named, family_of
from dq_lightning.models.layer_mapping import layer_mapping
from dq_lightning.models.student import student_from_teacher
from dq_lightning.models.teacher import resolve_path
from dq_lightning.quantization.prepare import prepare
from dq_lightning.runtime.loading import EngineName
from dq_lightning.runtime.texts import texts_of

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def of_file(file: Path, teacher: str | None, folder: Path, engine: EngineName) -> Subject:
    """A packed file beside its teacher (a folder or a hub name), else beside itself in float32."""
    student = read_packed(file)
    if teacher is None:
        name = "the same student, dequantized (no --teacher given)"
        return Subject(student, file, dequantized_model(student), name, folder, engine)
    model: PreTrainedModel = AutoModelForSeq2SeqLM.from_pretrained(
        model_folder(resolve_path(teacher))
    )
    return Subject(student, file, model.eval().float(), f"teacher {_layers(model)}", folder, engine)


def positions_of(file: Path) -> int | None:
    """Rows of a student's table of positions, which no text outgrows; None without one."""
    student = read_packed(file)
    return _positions(family_named(student.family), student.config)


def positions_of_shape(shape: str) -> int | None:
    """The same of an option of conf/teacher."""
    config, _ = teacher_config(_composed([f"teacher={shape}"]).teacher)
    return _positions(family_of(config), config.to_dict())


def _positions(family: ModelFamily, config: Mapping[str, Any]) -> int | None:
    has_table = "*.embed_positions" in family.keep_embeddings
    return config["max_position_embeddings"] if has_table else None


def teacher_files(teacher: str) -> list[Path]:
    """The files of a folder (or a run directory) that decide how its model runs; of a hub name [].

    A model card or a tokenizer beside them decides nothing here.
    """
    folder = Path(model_folder(resolve_path(teacher)))
    return sorted(file for p in ("config.json", *_WEIGHTS) for file in folder.glob(p))


def digest(files: Sequence[Path]) -> str:
    """16 hexadecimal digits of the files' contents, in the order given."""
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                found.update(block)
    return found.hexdigest()[:16]


def of_shape(
    shape: str, bits: str, layers: str, seed: int, folder: Path, engine: EngineName
) -> Subject:
    """A teacher with Gaussian weights at its full depth, and its quantized student.

    shape: an option of conf/teacher that has a config; bits, layers: as quant.bits and
    student.layers of train.py.
    """
    cfg = _composed([f"teacher={shape}", f"quant.bits={bits}", f"student.layers={layers}"])
    config, _ = teacher_config(cfg.teacher)
    family, recipe = family_of(config), build_recipe(cfg.quant)
    mapping = layer_mapping(chosen_layers(cfg.student), family.num_layers(config))
    torch.manual_seed(seed)
    teacher = family.model_class(config).eval().requires_grad_(False)
    student = student_from_teacher(teacher, family, mapping).eval()
    prepare(student, recipe, family)
    packed = pack_student(student, family)
    file = folder / "model.dq"
    write_packed(file, packed)
    return Subject(packed, file, teacher, f"teacher {_layers(teacher)}", folder, engine)


def random_sources(student: PackedStudent, number: int, length: int, seed: int) -> list[list[int]]:
    """Texts of `length` random tokens; special tokens are none of them."""
    special = {student.generation.get(f"{n}_token_id") for n in ("pad", "bos", "eos", "unk")}
    usable = [place for place in range(student.config["vocab_size"]) if place not in special]
    generator = random.Random(seed)
    return [generator.choices(usable, k=length) for _ in range(number)]


def text_sources(student: PackedStudent, file: Path, number: int, length: int) -> list[list[int]]:
    """The first texts of a file, one a line, as the student's own tokens, cut at `length`."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"--sources {file} has no text; write one a line.")
    sources = texts_of(student).encode(lines[:number])
    return [source.token_ids[:length] for source in sources]


def _composed(overrides: Sequence[str]) -> DictConfig:
    folder = Path.cwd() / "conf"
    if not (folder / "train.yaml").is_file():
        raise ValueError(
            f"There is no config tree at {folder}; --shape needs one: run this in the "
            "repository's root, where train.py and conf/ are."
        )
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose("train", list(overrides))


def _layers(model: PreTrainedModel) -> str:
    encoder, decoder = family_of(model.config).num_layers(model.config)
    return f"{encoder}-{decoder}"
