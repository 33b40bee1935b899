"""One run, told in order: parts -> teacher's scores -> fit -> test -> artifact."""

import contextlib
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedModel

from dq_lightning.artifacts.artifact import Artifact, environment, versions
from dq_lightning.artifacts.results import drops, prediction_rows
from dq_lightning.artifacts.shards import texts_in_shards
from dq_lightning.artifacts.student_folder import save_student
from dq_lightning.benchmarks.generation_time import generation_seconds
from dq_lightning.benchmarks.size import as_evaluated_bytes, nominal_bytes
from dq_lightning.checks import check_config
from dq_lightning.choices import build, cell_columns, plain, writes_targets
from dq_lightning.composition import Parts, build_parts
from dq_lightning.data.pseudo_labels import distinct
from dq_lightning.devices import other_ranks, trains_on_several
from dq_lightning.evaluation.evaluate import Evaluation, cached_evaluation, evaluate
from dq_lightning.evaluation.generation import generate_split
from dq_lightning.models.teacher import weights_digest
from dq_lightning.packing import Packed, pack_and_score
from dq_lightning.reporting.terminal import print_run_table
from dq_lightning.training.checkpoints import (
    checkpoint_to_resume,
    is_sharded,
    load_best,
    round_weights,
    whole_student,
)
from dq_lightning.training.loggers import log_results, wandb_finished
from dq_lightning.training.progress import describe, quiet_libraries
from dq_lightning.training.ranks import Ranks, as_rank, is_first_rank, say_ready
from dq_lightning.training.termination import exits_on_sigterm
from dq_lightning.training_composition import build_training

_EVALUATION_FORMAT = 1  # raise when metrics or generation change: cached scores are then left alone


def run(cfg: DictConfig) -> float | None:
    """Train and test a student as `cfg` says; returns its primary test metric.

    With several devices each process does this; those above rank 0 only train, and return None.
    """
    artifact = Artifact(cfg.paths.output_dir)
    if trains_on_several(cfg) and not is_first_rank():
        return _train_along(cfg, artifact)
    cell = _cell(cfg)
    with artifact.checking(cell), exits_on_sigterm():
        quiet_libraries()
        check_config(cfg)
        resume = _resume_from(cfg, artifact)
    with artifact.running(cell), wandb_finished(), exits_on_sigterm():
        artifact.write_text("config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        parts = build_parts(cfg)
        artifact.write_json("environment.json", environment(cfg.seed, str(parts.device)))
        artifact.write_json("quantization.json", parts.preparation)
        validated, tested = (_evaluate_teacher(cfg, parts, name) for name in ("validation", "test"))
        scores = validated.scores if validated else {}
        pseudo_labels = _pseudo_label(cfg, parts)
        with other_ranks(cfg, artifact, resume) as ranks:
            trainer, module = build_training(cfg, parts, artifact.checkpoints, scores)
            _fit(trainer, module, parts, resume, ranks)
        if is_sharded(trainer):
            parts = replace(parts, student=whole_student(build_parts(cfg).student, trainer))
        dtype = getattr(torch, cfg.student.save_dtype)
        round_weights(parts.student, dtype)
        student = _evaluate(parts, parts.student, "test")
        print(f"Student on test: {_shown(student)}", flush=True)
        _save(artifact, parts, dtype, _predictions(parts, student, tested))
        packed = pack_and_score(cfg, artifact, parts, student, tested)
        metrics = _metrics(cfg, parts, trainer.global_step, student, tested, packed)
        metrics |= pseudo_labels
        artifact.write_json("metrics.json", metrics)
        log_results(trainer.loggers, metrics, artifact.read_jsonl("predictions.jsonl"), cfg.samples)
        print_run_table(metrics)
        print(f"Run directory: {artifact.run_dir}", flush=True)
        return student.scores[parts.metric.primary]


def _cell(cfg: DictConfig) -> dict[str, Any]:
    """The cell's columns, or what was written where `build_parts` will not be able to read it."""
    try:
        return cell_columns(cfg)
    except Exception:  # whatever it is, build_parts raises it again, within the artifact
        return {"name": f"quant.bits={cfg.quant.bits} student.layers={cfg.student.layers}"}


def _resume_from(cfg: DictConfig, artifact: Artifact) -> Path | None:
    def same_config(run_dir: Path) -> bool:
        file = run_dir / "config.yaml"
        return file.is_file() and _identity(OmegaConf.load(file)) == _identity(cfg)

    path = checkpoint_to_resume(cfg.ckpt, artifact.checkpoints, Path(cfg.paths.runs), same_config)
    if path is not None:
        print(f"Resuming from {path}", flush=True)
    return path


def _identity(cfg: Any) -> dict[str, Any]:
    """The config without what may differ between a run and the one that resumes it."""
    return {key: v for key, v in plain(cfg).items() if key not in ("ckpt", "paths", "logger")}


def _evaluate(parts: Parts, model: PreTrainedModel, split: str) -> Evaluation:
    loader = parts.data.val_dataloader() if split == "validation" else parts.data.test_dataloader()
    references = parts.data.references(split)
    who = "student" if model is parts.student else "teacher"
    print(f"Generating with the {who}: {len(references):,} {split} rows", flush=True)
    return evaluate(
        model.to(parts.device),  # pyright: ignore[reportArgumentType]
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
        _EVALUATION_FORMAT,
        versions("transformers", "rouge-score", "sacrebleu"),
        *_written_by(model, parts.data.key, split, parts.data.limits[split]),
        {**model.generation_config.to_dict(), **parts.generator.settings},  # pyright: ignore
        plain(cfg.metric),
        parts.device.type,
        torch.__version__,
        *([parts.assistant] if parts.assistant else []),
    ]
    cache = Path(cfg.paths.cache)
    result = cached_evaluation(identity, cache, lambda: _evaluate(parts, model, split))
    print(f"Teacher on {split}: {_shown(result)}", flush=True)
    return result


def _written_by(model: PreTrainedModel, *rows: Any) -> list[Any]:
    """What decides a model's texts for some rows, generation settings aside."""
    neither = {"transformers_version": None, "_name_or_path": None}  # nor where its folder lies
    config = model.config.to_dict() | neither
    return [weights_digest(model), plain(OmegaConf.create(config)), *rows]


def _pseudo_label(cfg: DictConfig, parts: Parts) -> dict[str, Any]:
    """Let the teacher write the training targets if so configured; what metrics.json says of it."""
    node = cfg.pseudo_label
    if not writes_targets(cfg):
        return {}
    assert parts.teacher is not None, "check_config lets no other run through"
    model, rows = parts.teacher.model, distinct(parts.data.split("train"))
    settings = {**parts.generator.settings, **plain(node.generation)}
    generator = replace(parts.generator, settings=settings)
    identity = [
        _EVALUATION_FORMAT,
        versions("transformers", "torch"),
        *_written_by(model, parts.data.key),
        {**model.generation_config.to_dict(), **settings},  # pyright: ignore
        node.batch_size,
        parts.device.type,
        parts.assistant,
    ]
    model.to(parts.device)  # pyright: ignore[reportArgumentType]

    def write(start: int, stop: int) -> list[str]:
        batches = parts.data.batches(rows.select(range(start, stop)), node.batch_size)
        with torch.random.fork_rng():
            torch.manual_seed(start)  # where texts are sampled, a resumed run draws the same
            return generate_split(model, batches, generator)[0]

    cache = Path(cfg.paths.cache) / "pseudo_labels"
    texts = texts_in_shards(cache, identity, len(rows), node.shard_size, write)
    source = build(node.reader)(rows=parts.data.split("train"), texts=texts)
    parts.data.train_on(source)
    counts = {"sources": len(texts), "empty": source.num_empty}
    print(f"Training on the teacher's targets ({node.targets}): {counts}", flush=True)
    return {"pseudo_labels": {"targets": node.targets, **counts}}


def _train_along(cfg: DictConfig, artifact: Artifact) -> None:
    """What ranks above 0 do: the same parts, their share of each batch; they write nothing."""
    with open(os.devnull, "w") as silence, contextlib.redirect_stdout(silence), exits_on_sigterm():
        quiet_libraries()
        check_config(cfg)
        resume = _resume_from(cfg, artifact)
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        parts = build_parts(cfg)
        _pseudo_label(cfg, parts)
        with other_ranks(cfg, artifact, resume) as ranks:
            trainer, module = build_training(cfg, parts, artifact.checkpoints, {}, logs=False)
            say_ready()
            _fit(trainer, module, parts, resume, ranks)


def _fit(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    parts: Parts,
    resume: Path | None,
    ranks: Ranks | None,
) -> None:
    if ranks is not None:
        ranks.wait()
    trainer.fit(module, datamodule=parts.data, ckpt_path=resume)
    if not is_sharded(trainer):
        load_best(trainer, module, parts.data)


def _shown(result: Evaluation) -> str:
    return f"{describe(result.scores)} ({len(result.texts):,} rows)"


def _metrics(
    cfg: DictConfig,
    parts: Parts,
    steps: int,
    student: Evaluation,
    teacher: Evaluation | None,
    packed: Packed,
) -> dict[str, Any]:
    """The content of metrics.json."""
    models = {"teacher": parts.teacher.model} if parts.teacher else {}
    models["student"] = parts.student
    counted = parts.student, parts.bits, parts.family, tuple(cfg.quant.exclude)
    nominal = nominal_bytes(*counted)
    batches = [b for b, _ in zip(parts.data.test_dataloader(), range(2), strict=False)]
    writers: dict[str, Any] = {n: partial(parts.generator, model) for n, model in models.items()}
    scores = teacher.scores if teacher else {}
    return {
        "cell": cell_columns(cfg),
        "primary_metric": parts.metric.primary,
        "metric_recipe": parts.metric.recipe,
        "teacher": scores,
        "student": student.scores,
        "drop": drops(scores, student.scores, parts.metric.higher_is_better),
        "bytes": {
            "teacher": packed.teacher_bytes,
            "student_nominal": nominal.published_bytes,
            "ratio": packed.teacher_bytes / nominal.published_bytes,
            "student_reference_rule": nominal.reference_rule_bytes,
            "student_as_evaluated": as_evaluated_bytes(*counted),
            **packed.sizes,
        },
        "packed": packed.results,
        "parameters": {name: model.num_parameters() for name, model in models.items()},
        "generation_seconds": generation_seconds(writers | packed.writers, batches),
        "timed_items": sum(len(batch["index"]) for batch in batches),
        "run": {
            "device": str(parts.device),
            "seed": cfg.seed,
            "steps": steps,
            **{f"{name}_rows": len(rows) for name, rows in parts.data.splits.items()},
        },
    }


def _predictions(
    parts: Parts, student: Evaluation, teacher: Evaluation | None
) -> list[dict[str, Any]]:
    rows = parts.data.split("test")
    written = teacher.texts if teacher else None
    return prediction_rows(rows["source"], rows["references"], student.texts, written)


def _save(
    artifact: Artifact, parts: Parts, dtype: torch.dtype, predictions: list[dict[str, Any]]
) -> None:
    artifact.write_jsonl("predictions.jsonl", predictions)
    with artifact.directory("student") as folder:
        parts.student.to(dtype)  # pyright: ignore[reportArgumentType]
        save_student(parts.student, folder)
        parts.tokenizer.save_pretrained(folder)
    parts.student.to(torch.float32)  # pyright: ignore[reportArgumentType]  # what was tested


if __name__ == "__main__":  # a rank that another process of this run started
    with as_rank():
        run(OmegaConf.create(OmegaConf.load(sys.argv[1])))  # pyright: ignore
