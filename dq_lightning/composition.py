"""Config -> objects, in the order of the data's flow."""

from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dq_lightning.artifacts.finished import finished_run, model_folder
from dq_lightning.artifacts.student_folder import load_quantizers
from dq_lightning.checks import check_lengths
from dq_lightning.choices import (
    build,
    build_recipe,
    chosen_layers,
    chosen_narrowing,
    plain,
)
from dq_lightning.data.datamodule import Seq2SeqDataModule
from dq_lightning.data.languages import language_settings, set_languages
from dq_lightning.data.source import SPLITS, DataSource
from dq_lightning.data.tokenization import TokenizationConfig
from dq_lightning.distillation.loss import ATTENTIONS, Widths
from dq_lightning.distillation.objective import Objective
from dq_lightning.evaluation.generation import TextGenerator
from dq_lightning.evaluation.metric import Metric
from dq_lightning.models.family import ModelFamily, family_named, family_of
from dq_lightning.models.layer_mapping import layer_mapping
from dq_lightning.models.narrowing import narrow_config
from dq_lightning.models.recording import attention_width
from dq_lightning.models.student import student_from_scratch, student_from_teacher
from dq_lightning.models.teacher import Teacher, load_config, load_teacher, resolve_path
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import Bits, QuantizationRecipe
from dq_lightning.training.module import default_device
from dq_lightning.training.quantization_schedule import QuantizationSchedule


@dataclass(frozen=True)
class Parts:
    """What a run is made of. A run without a teacher trains one from labels.

    assistant: what was quantized of a teacher that is an earlier run's student.
    """

    bits: Bits
    family: ModelFamily
    tokenizer: PreTrainedTokenizerBase
    teacher: Teacher | None
    assistant: dict[str, Any] | None
    student: PreTrainedModel
    preparation: dict[str, Any]
    quant_schedule: QuantizationSchedule | None
    data: Seq2SeqDataModule
    objective: Objective
    metric: Metric
    generator: TextGenerator
    device: torch.device


def build_parts(cfg: DictConfig) -> Parts:
    """Everything but the trainer; each step checks its part of the config before the next loads."""
    recipe, objective, metric = build_recipe(cfg.quant), build(cfg.distill), build(cfg.metric)
    reader = build(cfg.data.reader)
    student, teacher, tokenizer, family = build_models(cfg)
    set_languages(tokenizer, cfg.data.source_language, cfg.data.target_language)
    check_lengths(cfg, student.config)
    if objective.needs_teacher and teacher is None:
        raise ValueError("distill has losses that need a teacher; write distill=labels_only.")
    if teacher:
        objective.bind(build_widths(student), build_widths(teacher.model))
    # sdpa records no attention maps, it returns none of them with a mere warning
    attention = "eager" if ATTENTIONS in objective.requires else cfg.teacher.attention
    for model in (student, teacher.model) if teacher else (student,):
        model.set_attn_implementation(attention)
    preparation = _prepare(student, recipe, family)
    assistant = quantize_as_trained(teacher.model, cfg.teacher.path, family) if teacher else None
    schedule = build(cfg.quant_schedule) if cfg.quant_schedule else None
    return Parts(
        bits=recipe.bits,
        family=family,
        tokenizer=tokenizer,
        teacher=teacher,
        assistant=assistant,
        student=student,
        preparation=preparation,
        quant_schedule=schedule and schedule(student, recipe, family),
        data=build_data(cfg, reader, tokenizer),
        objective=objective,
        metric=metric,
        generator=TextGenerator(tokenizer, generation_settings(cfg, tokenizer)),
        device=torch.device("cpu") if cfg.trainer.accelerator == "cpu" else default_device(),
    )


def build_models(
    cfg: DictConfig,
) -> tuple[PreTrainedModel, Teacher | None, PreTrainedTokenizerBase, ModelFamily]:
    """Student, teacher (None for teacher=none), tokenizer, family."""
    layers = chosen_layers(cfg.student)
    if cfg.teacher.path is None:
        family, tokenizer = family_named(cfg.student.family), build(cfg.student.tokenizer)
        student = student_from_scratch(family, tokenizer, *layers, plain(cfg.student.config))
        return student, None, tokenizer, family
    path = model_folder(resolve_path(cfg.teacher.path))
    config = load_config(path, cfg.teacher.revision)
    family = family_of(config)
    mapping = layer_mapping(
        layers,
        family.num_layers(config),
        cfg.student.encoder_mapping,
        cfg.student.decoder_mapping,
        cfg.student.mapping,
    )
    narrowing = chosen_narrowing(cfg.student)
    narrow_config(config, family, narrowing)  # refuses sizes that do not fit, before the weights
    model, tokenizer = load_teacher(path, family, cfg.teacher.revision)
    student = student_from_teacher(model, family, mapping, cfg.student.dropout, narrowing)
    return student, Teacher(model, mapping), tokenizer, family


def build_widths(model: PreTrainedModel) -> Widths:
    """How wide the model's hidden states and its attention are, and its attention heads."""
    encoder, decoder = family_of(model.config).layout.sizes(model.config)
    heads = encoder.heads, decoder.heads
    return Widths(model.config.hidden_size, attention_width(model), heads)


def quantize_as_trained(
    model: PreTrainedModel, path: str, family: ModelFamily
) -> dict[str, Any] | None:
    """Quantize a teacher that is an earlier run's student as that run did, learned scales included.

    Returns what was quantized; None, and nothing happens, where `path` is no run directory.
    """
    run = finished_run(resolve_path(path))
    if run is None:
        return None
    recipe = build_recipe(OmegaConf.create(run.read_text("config.yaml")).quant)
    preparation = _prepare(model, recipe, family)
    if preparation["swapped"].keys() != run.read_json("quantization.json")["swapped"].keys():
        raise ValueError(
            f"teacher.path={path} quantized other modules than this version does; repeat that run, "
            f"or write teacher.path={run.student} for its weights in full precision."
        )
    try:
        load_quantizers(model, run.student)
    except ValueError as error:
        raise ValueError(
            f"teacher.path={path} lacks learned scales which its quantization needs; repeat that "
            "run."
        ) from error
    model.eval().requires_grad_(False)
    return preparation


def _prepare(
    model: PreTrainedModel, recipe: QuantizationRecipe, family: ModelFamily
) -> dict[str, Any]:
    report = prepare(model, recipe, family).as_dict()
    return {"bits": str(recipe.bits), "head": recipe.head, **report}


def build_data(
    cfg: DictConfig, reader: DataSource, tokenizer: PreTrainedTokenizerBase
) -> Seq2SeqDataModule:
    """Tokenized splits (from the cache if they are there); raises when one of the three lacks."""
    node = cfg.data
    limits = [rows for rows in (cfg.validation_rows, node.limit_validation) if rows is not None]
    data = Seq2SeqDataModule(
        reader,
        tokenizer,
        TokenizationConfig(node.max_source_length, node.max_target_length, node.source_prefix),
        cache_dir=cfg.paths.cache,
        batch_size=node.batch_size,
        eval_batch_size=node.eval_batch_size,
        seed=cfg.seed,
        num_workers=node.num_workers,
        accumulate_grad_batches=cfg.trainer.accumulate_grad_batches,
        limit_train=node.limit_train,
        limit_validation=min(limits, default=None),
        limit_test=node.limit_test,
    )
    for name in SPLITS:
        data.split(name)
    return data


def generation_settings(cfg: DictConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The target language, then data.generation; a null there leaves the model's own setting."""
    chosen: dict[str, Any] = plain(cfg.data.generation)
    given = {key: value for key, value in chosen.items() if value is not None}
    return {**language_settings(tokenizer), **given}
