"""A tiny BART, a few words of a made-up dictionary, and one function that trains on them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedModel

from dq_lightning.data.cmudict import CMUDict, split_of
from dq_lightning.data.datamodule import Seq2SeqDataModule
from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.data.tokenization import TokenizationConfig
from dq_lightning.distillation.cross_entropy import CrossEntropyLoss
from dq_lightning.distillation.hidden_state_mse import HiddenStateMSELoss
from dq_lightning.distillation.logits_kl import LogitsKLLoss
from dq_lightning.distillation.objective import Objective
from dq_lightning.evaluation.generation import TextGenerator
from dq_lightning.evaluation.token_error import PhonemeErrorMetric
from dq_lightning.models import bart
from dq_lightning.models.layer_mapping import LayerMapping
from dq_lightning.models.student import student_from_teacher
from dq_lightning.models.teacher import Teacher
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.quantization.symmetric import SymmetricQuantizer
from dq_lightning.quantization.ternary import ternary_or_symmetric
from dq_lightning.training.module import DistillationModule
from dq_lightning.training.progress import ProgressLines
from dq_lightning.training.schedule import warmup_schedule
from dq_lightning.training.step_seed import StepSeed

MAPPING = LayerMapping((1,), (0, 1))
COUNTS = {"train": 20, "validation": 4, "test": 3}
BATCH_SIZE = 4  # five batches an epoch
SOUNDS = dict(zip("aeioubdfgkmst", "AE EH IH AA AH B D F G K M S T".split(), strict=True))


@pytest.fixture(scope="session")
def dictionary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dictionary with COUNTS words a split."""
    wanted, lines = dict(COUNTS), []
    words = (c + v + "".join(t) for v in "aeiou" for c in "bdfgkmst" for t in ("", "sa", "tim"))
    for word in words:
        name = split_of(word)
        if wanted[name]:
            wanted[name] -= 1
            lines.append(f"{word} {' '.join(SOUNDS[letter] for letter in word)}")
    more = (f"{a}{v}{b}" for a in "bdfgkmst" for v in "aeiou" for b in "bdfgkmst")
    for word in more:
        name = split_of(word)
        if wanted[name]:
            wanted[name] -= 1
            lines.append(f"{word} {' '.join(SOUNDS[letter] for letter in word)}")
    assert not any(wanted.values())
    path = tmp_path_factory.mktemp("dictionary") / "cmudict.dict"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="session")
def make_data(
    dictionary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Seq2SeqDataModule]:
    cache = tmp_path_factory.mktemp("cache")

    def make(batch_size: int = BATCH_SIZE, accumulate: int = 1) -> Seq2SeqDataModule:
        return Seq2SeqDataModule(
            CMUDict(str(dictionary)),
            build_g2p_tokenizer(),
            TokenizationConfig(32, 32),
            cache_dir=cache,
            batch_size=batch_size,
            eval_batch_size=4,
            seed=7,
            accumulate_grad_batches=accumulate,
        )

    return make


def tiny_teacher() -> PreTrainedModel:
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=70, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24,
        max_position_embeddings=64, init_std=0.2, dropout=0.1, attention_dropout=0.1,
        activation_dropout=0.1, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, forced_eos_token_id=None,
    )  # fmt: skip
    return BartForConditionalGeneration(config)


def default_recipe() -> QuantizationRecipe:
    """The sites of conf/quant/default.yaml at 2-2-8."""
    rows = partial(ternary_or_symmetric, bits=2, granularity="per_row")
    tokens = partial(SymmetricQuantizer, bits=8, granularity="per_token")
    return QuantizationRecipe(rows, rows, tokens, tokens)


@pytest.fixture
def make_module() -> Callable[..., DistillationModule]:
    """A module whose student has dropout 0.1; `quantized` prepares it."""

    def make(quantized: bool = False, teacher: bool = True) -> DistillationModule:
        model = tiny_teacher()
        student = student_from_teacher(model, bart.FAMILY, MAPPING)
        if quantized:
            prepare(student, default_recipe(), bart.FAMILY)
        losses = {"task": CrossEntropyLoss()}
        if teacher:
            losses |= {"logits": LogitsKLLoss(), "hidden": HiddenStateMSELoss()}
        return DistillationModule(
            student,
            Teacher(model, MAPPING) if teacher else None,
            Objective(losses, dict.fromkeys(losses, 1.0)),
            PhonemeErrorMetric(),
            TextGenerator(build_g2p_tokenizer(), {"max_new_tokens": 6, "do_sample": False}),
            partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.01, betas=(0.9, 0.98)),
            partial(warmup_schedule, name="linear", warmup_fraction=0.1),
        )

    return make


@dataclass
class Recorder(pl.Callback):
    """What was computed: the loss of every batch, and the scores of every validation, by step."""

    losses: dict[tuple[int, int], float] = field(default_factory=dict)
    terms: dict[int, dict[str, float]] = field(default_factory=dict)
    validations: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        total = trainer.fit_loop.epoch_loop.total_batch_idx
        self.losses[total, batch_idx] = float(outputs["loss"])
        self.terms[total] = {
            name: float(value)
            for name, value in trainer.logged_metrics.items()
            if name.startswith("train/")  # the scores of the last validation stay beside them
        }

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        scores = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("validation/")
        }
        self.validations.append((trainer.global_step, scores))


@dataclass
class Fitted:
    module: DistillationModule
    trainer: pl.Trainer
    recorder: Recorder

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.module.student.state_dict()


@pytest.fixture
def fit(
    make_module: Callable[..., DistillationModule],
    make_data: Callable[..., Seq2SeqDataModule],
    tmp_path: Path,
) -> Callable[..., Fitted]:
    """Train as the composition root does, from scratch or from the file `ckpt`.

    Every validation leaves a checkpoint step=<n>.ckpt in `folder`; `seed_callback=False` trains
    without StepSeed. schedule: makes the callback that changes the student's quantizers.
    """

    def run(
        steps: int,
        ckpt: Path | None = None,
        *,
        folder: str = "checkpoints",
        interval: int | None = None,
        accumulate: int = 1,
        batch_size: int = BATCH_SIZE,
        quantized: bool = False,
        teacher: bool = True,
        seed_callback: bool = True,
        callbacks: list[pl.Callback] | None = None,
        schedule: Callable[[PreTrainedModel], pl.Callback] | None = None,
    ) -> Fitted:
        recorder = Recorder()
        torch.manual_seed(0 if ckpt is None else 12345)  # the past of a resumed process differs
        checkpoint = ModelCheckpoint(
            tmp_path / folder, filename="{step}", monitor="validation/wer", mode="min",
            save_top_k=-1, save_last=True,
        )  # fmt: skip
        module = make_module(quantized=quantized, teacher=teacher)
        seed: list[pl.Callback] = [StepSeed(3)] if seed_callback else []
        seed += [schedule(module.student)] if schedule else []
        given = any(isinstance(callback, ProgressBar) for callback in callbacks or [])
        bars = [] if given else [ProgressLines(1e9)]
        trainer = pl.Trainer(
            accelerator="cpu", max_steps=steps, max_epochs=-1, accumulate_grad_batches=accumulate,
            val_check_interval=(interval or steps) * accumulate, check_val_every_n_epoch=None,
            callbacks=[*seed, *bars, recorder, *(callbacks or []), checkpoint],
            logger=False, num_sanity_val_steps=0, use_distributed_sampler=False,
            enable_model_summary=False, deterministic="warn", gradient_clip_val=1.0,
            default_root_dir=tmp_path, log_every_n_steps=1,
        )  # fmt: skip
        data = make_data(batch_size, accumulate)
        trainer.fit(module, datamodule=data, ckpt_path=ckpt, weights_only=False)
        return Fitted(module, trainer, recorder)

    return run
