"""The composition root: config -> objects -> fit -> test -> artifact. The only reader of `cfg`."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dq_lightning.artifacts.artifact import Artifact, environment
from dq_lightning.artifacts.results import drops, prediction_rows
from dq_lightning.benchmarks.generation_time import generation_seconds
from dq_lightning.benchmarks.size import nominal_bytes
from dq_lightning.data.datamodule import Seq2SeqDataModule
from dq_lightning.data.tokenization import TokenizationConfig
from dq_lightning.distillation.objective import Objective
from dq_lightning.evaluation.evaluate import Evaluation, cached_evaluation, evaluate
from dq_lightning.evaluation.generation import TextGenerator
from dq_lightning.evaluation.metric import Metric
from dq_lightning.models.family import ModelFamily, family_named, family_of
from dq_lightning.models.layer_mapping import layer_mapping, parse_layers
from dq_lightning.models.student import student_from_scratch, student_from_teacher
from dq_lightning.models.teacher import Teacher, load_config, load_teacher, weights_digest
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import Bits, QuantizationRecipe, at_bits, parse_bits
from dq_lightning.reporting.terminal import print_run_table
from dq_lightning.training.checkpoints import checkpoint_to_resume, load_best, round_weights
from dq_lightning.training.loggers import wandb_finished
from dq_lightning.training.module import DistillationModule, default_device
from dq_lightning.training.progress import ValidationLines


def build(node: Any, **arguments: Any) -> Any:
    """The object that a config node describes; the one place that instantiates."""
    return instantiate(node, **arguments)


@dataclass(frozen=True)
class Parts:
    """What a run is made of. A run without a teacher trains one from labels."""

    bits: Bits
    layers: tuple[int, int]
    family: ModelFamily
    tokenizer: PreTrainedTokenizerBase
    teacher: Teacher | None
    student: PreTrainedModel
    preparation: dict[str, Any]
    data: Seq2SeqDataModule
    objective: Objective
    metric: Metric
    generator: TextGenerator
    device: torch.device


def run(cfg: DictConfig) -> float | None:
    """One run, from config to artifact; returns the student's primary test metric."""
    artifact = Artifact(cfg.paths.output_dir)
    with artifact.running(cell=_cell(cfg)), wandb_finished():
        artifact.write_text("config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        parts = _build_parts(cfg)
        artifact.write_json("environment.json", environment(cfg.seed, str(parts.device)))
        artifact.write_json("quantization.json", parts.preparation)
        teacher = {name: _evaluate_teacher(cfg, parts, name) for name in ("validation", "test")}
        trainer, module = _build_training(cfg, parts, artifact, teacher["validation"])
        trainer.fit(module, datamodule=parts.data, ckpt_path=_resume_from(cfg, artifact))
        load_best(trainer, module)
        round_weights(parts.student, getattr(torch, cfg.student.save_dtype))
        student = _evaluate(parts, parts.student, "test")
        metrics = _metrics(cfg, parts, trainer, student, teacher["test"])
        parts.student.to(getattr(torch, cfg.student.save_dtype))
        _save(artifact, parts, metrics, student, teacher["test"])
        _log_results(cfg, trainer, artifact, metrics)
        print_run_table(metrics)
        print(f"Run directory: {artifact.run_dir}", flush=True)
        return student.scores[parts.metric.primary]


def _cell(cfg: DictConfig) -> dict[str, Any]:
    """The cell's columns of a report; raises for bits and layers that cannot be read."""
    bits, layers = parse_bits(cfg.quant.bits), parse_layers(cfg.student.layers)
    return {
        "name": f"{bits} {layers[0]}-{layers[1]}",
        "weight_bits": bits.weight,
        "embedding_bits": bits.embedding,
        "activation_bits": bits.activation,
        "encoder_layers": layers[0],
        "decoder_layers": layers[1],
    }


def _build_parts(cfg: DictConfig) -> Parts:
    bits, layers = parse_bits(cfg.quant.bits), parse_layers(cfg.student.layers)
    recipe = _build_recipe(cfg.quant, bits)
    student, teacher, tokenizer, family = _build_models(cfg, layers)
    preparation = prepare(student, recipe, family).as_dict()
    limits = [rows for rows in (cfg.validation_rows, cfg.data.limit_validation) if rows is not None]
    data = Seq2SeqDataModule(
        build(cfg.data.reader),
        tokenizer,
        TokenizationConfig(
            cfg.data.max_source_length, cfg.data.max_target_length, cfg.data.source_prefix
        ),
        cache_dir=cfg.paths.cache,
        batch_size=cfg.data.batch_size,
        eval_batch_size=cfg.data.eval_batch_size,
        seed=cfg.seed,
        num_workers=cfg.data.num_workers,
        limit_train=cfg.data.limit_train,
        limit_validation=min(limits, default=None),
        limit_test=cfg.data.limit_test,
    )
    data.setup()
    generation = OmegaConf.to_container(cfg.data.generation, resolve=True)
    return Parts(
        bits=bits,
        layers=layers,
        family=family,
        tokenizer=tokenizer,
        teacher=teacher,
        student=student,
        preparation={"bits": str(bits), "head": recipe.head, **preparation},
        data=data,
        objective=build(cfg.distill),
        metric=build(cfg.metric),
        generator=TextGenerator(tokenizer, generation),  # pyright: ignore[reportArgumentType]
        device=torch.device("cpu") if cfg.trainer.accelerator == "cpu" else default_device(),
    )


def _build_recipe(quant: DictConfig, bits: Bits) -> QuantizationRecipe:
    inherited = {
        "weight": bits.weight,
        "embedding": bits.embedding,
        "activation": bits.activation,
        "attention": bits.activation,
    }
    sites = {
        site: at_bits(
            build(quant[site].quantizer),
            value if quant[site].bits is None else quant[site].bits,
        )
        for site, value in inherited.items()
    }
    return QuantizationRecipe(**sites, head=quant.head, exclude=tuple(quant.exclude))


def _build_models(
    cfg: DictConfig, layers: tuple[int, int]
) -> tuple[PreTrainedModel, Teacher | None, PreTrainedTokenizerBase, ModelFamily]:
    if cfg.teacher.path is None:
        family, tokenizer = family_named(cfg.student.family), build(cfg.student.tokenizer)
        config = OmegaConf.to_container(cfg.student.config, resolve=True)
        student = student_from_scratch(family, tokenizer, *layers, config)  # pyright: ignore
        return student, None, tokenizer, family
    path = _teacher_path(cfg.teacher.path)
    config = load_config(path, cfg.teacher.revision)
    family = family_of(config)
    mapping = layer_mapping(
        layers,
        family.num_layers(config),
        cfg.student.encoder_mapping,
        cfg.student.decoder_mapping,
    )
    model, tokenizer = load_teacher(path, family, cfg.teacher.revision)
    student = student_from_teacher(model, family, mapping)
    return student, Teacher(model, mapping), tokenizer, family


def _teacher_path(path: str) -> str:
    """A folder inside an installed package for pkg://package/folder; other paths as they are."""
    if not path.startswith("pkg://"):
        return str(Path(path).expanduser()) if Path(path).expanduser().exists() else path
    package, _, folder = path.removeprefix("pkg://").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"teacher.path={path} names a package that is not installed.")
    return str(Path(next(iter(spec.submodule_search_locations))) / folder)


def _evaluate(parts: Parts, model: PreTrainedModel, split: str) -> Evaluation:
    loader = parts.data.val_dataloader() if split == "validation" else parts.data.test_dataloader()
    references = parts.data.references(split)
    return evaluate(
        model.to(parts.device),
        loader,
        [references[index] for index in sorted(references)],
        parts.generator,
        parts.metric,
    )


def _evaluate_teacher(cfg: DictConfig, parts: Parts, split: str) -> Evaluation | None:
    """Computed once for all runs that ask the same of the same teacher."""
    if parts.teacher is None:
        return None
    model = parts.teacher.model
    identity = [
        weights_digest(model),
        parts.data.key,
        split,
        parts.data.limits[split],
        dict(parts.generator.settings),
        OmegaConf.to_container(cfg.metric, resolve=True),
        parts.device.type,
        torch.__version__,
    ]
    return cached_evaluation(
        identity, Path(cfg.paths.cache), lambda: _evaluate(parts, model, split)
    )


def _build_training(
    cfg: DictConfig, parts: Parts, artifact: Artifact, teacher: Evaluation | None
) -> tuple[pl.Trainer, DistillationModule]:
    accumulate = cfg.trainer.accumulate_grad_batches
    steps = cfg.steps or cfg.epochs * -(-len(parts.data.train_dataloader()) // accumulate)
    best = ModelCheckpoint(
        artifact.checkpoints,
        filename="best-{step}",
        monitor=f"validation/{parts.metric.primary}",
        mode="max" if parts.metric.higher_is_better else "min",
        save_last=True,
    )
    callbacks: list[Callback] = [build(node) for node in cfg.callbacks.values()]
    lines = ValidationLines(teacher.scores if teacher else {})
    trainer = build(
        cfg.trainer,
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=validation_interval(steps, cfg.validations) * accumulate,
        check_val_every_n_epoch=None,
        callbacks=[*callbacks, lines, best],
        logger=_build_loggers(cfg),
        default_root_dir=str(artifact.run_dir),
    )
    module = DistillationModule(
        parts.student,
        parts.teacher,
        parts.objective,
        parts.metric,
        parts.generator,
        build(cfg.optimizer),
        build(cfg.scheduler),
    )
    return trainer, module


def validation_interval(steps: int, validations: int) -> int:
    """Steps between validations: at most `validations` of them, evenly spaced, one at the end."""
    count = max(n for n in range(1, max(1, min(validations, steps)) + 1) if steps % n == 0)
    return steps // count


def _build_loggers(cfg: DictConfig) -> list[Any]:
    hydra = HydraConfig.get()
    in_sweep = hydra.mode == RunMode.MULTIRUN
    group = Path(hydra.sweep.dir).resolve().name if in_sweep else None
    named = {"name": _cell(cfg)["name"], "group": group}
    loggers = [
        build(node, **(named if name == "wandb" else {}))
        for name, node in (cfg.logger or {}).items()
    ]
    for logger in loggers:
        logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))
    return loggers


def _resume_from(cfg: DictConfig, artifact: Artifact) -> str | None:
    def same_config(run_dir: Path) -> bool:
        file = run_dir / "config.yaml"
        return file.is_file() and _identity(OmegaConf.load(file)) == _identity(cfg)

    path = checkpoint_to_resume(
        cfg.ckpt, artifact.checkpoints, Path(cfg.paths.runs), same_config
    )
    if path is not None:
        print(f"Resuming from {path}", flush=True)
    return str(path) if path is not None else None


def _identity(cfg: Any) -> Any:
    """The config without what may differ between a run and the run that resumes it."""
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    for key in ("ckpt", "paths", "logger"):
        content.pop(key, None)
    return content


def _metrics(
    cfg: DictConfig,
    parts: Parts,
    trainer: pl.Trainer,
    student: Evaluation,
    teacher: Evaluation | None,
) -> dict[str, Any]:
    """The content of metrics.json."""
    models = {"student": parts.student}
    if parts.teacher is not None:
        models["teacher"] = parts.teacher.model
    size = nominal_bytes(parts.student, parts.bits, parts.family, tuple(cfg.quant.exclude))
    teacher_bytes = nominal_bytes(
        models.get("teacher", parts.student), Bits(32, 32, 32), parts.family
    ).published_bytes
    rows = {name: len(split) for name, split in parts.data.splits.items()}
    batches = [b for b, _ in zip(parts.data.test_dataloader(), range(2), strict=False)]
    return {
        "cell": _cell(cfg),
        "primary_metric": parts.metric.primary,
        "teacher": teacher.scores if teacher else {},
        "student": student.scores,
        "drop": drops(teacher.scores if teacher else {}, student.scores,
                      parts.metric.higher_is_better),
        "bytes": {
            "teacher": teacher_bytes,
            "student_nominal": size.published_bytes,
            "ratio": teacher_bytes / size.published_bytes,
        },
        "parameters": {
            name: sum(p.numel() for p in model.parameters()) for name, model in models.items()
        },
        "generation_seconds": generation_seconds(models, batches, parts.generator),
        "test_items": sum(len(batch["index"]) for batch in batches),
        "run": {
            "device": str(parts.device),
            "seed": cfg.seed,
            "steps": trainer.global_step,
            **{f"{name}_rows": count for name, count in rows.items()},
        },
    }


def _save(
    artifact: Artifact,
    parts: Parts,
    metrics: dict[str, Any],
    student: Evaluation,
    teacher: Evaluation | None,
) -> None:
    rows = parts.data.split("test")
    artifact.write_jsonl(
        "predictions.jsonl",
        prediction_rows(
            rows["source"], rows["references"], student.texts, teacher.texts if teacher else None
        ),
    )
    with artifact.directory("student") as folder:
        parts.student.save_pretrained(folder)
        parts.tokenizer.save_pretrained(folder)
    artifact.write_json("metrics.json", metrics)


def _log_results(
    cfg: DictConfig, trainer: pl.Trainer, artifact: Artifact, metrics: dict[str, Any]
) -> None:
    numbers = {
        f"{group}/{name}": value
        for group in ("teacher", "student", "drop", "bytes", "generation_seconds")
        for name, value in metrics[group].items()
    }
    columns = ["source", "references", "student", "teacher"]
    samples = artifact.read_jsonl("predictions.jsonl")[: cfg.samples]
    for logger in trainer.loggers:
        logger.log_metrics(numbers)
        if isinstance(logger, WandbLogger):
            data = [[str(row[column]) for column in columns] for row in samples]
            logger.log_table("predictions", columns=columns, data=data)
