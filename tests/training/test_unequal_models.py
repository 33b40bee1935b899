"""Training a student narrower than its teacher: relations of attention, and learned projections."""

from functools import partial

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, BartForConditionalGeneration

from dq_lightning.composition import build_widths
from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.distillation.attention_relations import AttentionRelationsLoss
from dq_lightning.distillation.cross_entropy import CrossEntropyLoss
from dq_lightning.distillation.hidden_cosine import HiddenCosineLoss
from dq_lightning.distillation.hidden_state_mse import HiddenStateMSELoss
from dq_lightning.distillation.objective import Objective
from dq_lightning.evaluation.generation import TextGenerator
from dq_lightning.evaluation.token_error import PhonemeErrorMetric
from dq_lightning.models import bart
from dq_lightning.models.layer_mapping import LayerMapping
from dq_lightning.models.student import student_from_scratch, student_from_teacher
from dq_lightning.models.teacher import Teacher
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.quantization.symmetric import SymmetricQuantizer
from dq_lightning.training.module import DistillationModule
from dq_lightning.training.schedule import warmup_schedule

pytestmark = pytest.mark.filterwarnings("ignore")

MAPPING = LayerMapping((1,), (0, 1))
STACKS = ("encoder_hidden_states", "decoder_hidden_states")


def tiny(width: int, heads: int) -> BartForConditionalGeneration:
    sizes = {
        "d_model": width, "encoder_attention_heads": heads, "decoder_attention_heads": heads,
        "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 64,
        "decoder_start_token_id": 1, "init_std": 0.2, "dropout": 0.1,
    }  # fmt: skip
    return student_from_scratch(bart.FAMILY, build_g2p_tokenizer(), 2, 2, sizes)


@pytest.fixture
def make_module():
    """A student of width 8 and 4 heads, a teacher of width 16 and 2 heads; `fit` trains it."""

    def make(quantized=False, teacher=True):
        torch.manual_seed(0)
        model = tiny(16, 2)
        student = student_from_teacher(tiny(8, 4), bart.FAMILY, MAPPING)
        losses = {
            "task": CrossEntropyLoss(),
            "relations": AttentionRelationsLoss(relation_heads=4),
            "hidden": HiddenStateMSELoss(),
            "direction": HiddenCosineLoss(),
        }
        objective = Objective(losses, dict.fromkeys(losses, 1.0))
        objective.bind(build_widths(student), build_widths(model))
        if quantized:
            tokens = partial(SymmetricQuantizer, bits=8, granularity="per_token")
            prepare(student, QuantizationRecipe(*[tokens] * 4), bart.FAMILY)
        return DistillationModule(
            student,
            Teacher(model, MAPPING),
            objective,
            PhonemeErrorMetric(),
            TextGenerator(build_g2p_tokenizer(), {"max_new_tokens": 6, "do_sample": False}),
            partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.01),
            partial(warmup_schedule, name="linear", warmup_fraction=0.1),
        )

    return make


def matrices(module):
    return {name: value for name, value in module.state_dict().items() if "matrices" in name}


def test_matrices_are_trained_with_the_student(fit, make_module):
    fitted = fit(2)
    fresh, trained = matrices(make_module()), matrices(fitted.module)
    assert set(trained) == {
        f"objective.losses.{loss}.projections.matrices.{stack}"
        for loss in ("hidden", "direction")
        for stack in STACKS
    }
    assert all(value.shape == (16, 8) for value in trained.values())
    assert not any(torch.equal(value, fresh[name]) for name, value in trained.items())
    assert set(fitted.recorder.terms[1]) == {
        f"train/{name}" for name in ("loss", "task", "relations", "hidden", "direction")
    }


def test_the_optimizer_holds_each_parameter_once(fit):
    fitted = fit(1)
    groups = fitted.trainer.optimizers[0].param_groups
    held = sorted(id(parameter) for group in groups for parameter in group["params"])
    assert held == sorted(id(parameter) for parameter in fitted.module.parameters())


@pytest.mark.parametrize("quantized", [False, True])
def test_resumed_equals_unbroken(fit, tmp_path, quantized):
    settings = {"interval": 2, "accumulate": 2, "quantized": quantized}
    unbroken = fit(4, **settings)
    resumed = fit(4, tmp_path / "checkpoints" / "step=2.ckpt", folder="resumed", **settings)
    torch.testing.assert_close(
        resumed.module.state_dict(), unbroken.module.state_dict(), rtol=0, atol=0
    )
    last = max(unbroken.recorder.terms)
    assert resumed.recorder.terms[last] == unbroken.recorder.terms[last]


def test_matrices_stay_behind_when_the_student_is_saved(fit, tmp_path):
    student = fit(1).module.student
    student.save_pretrained(tmp_path / "student")
    loaded, report = AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "student", output_loading_info=True
    )
    assert not any(report.values())
    torch.testing.assert_close(loaded.state_dict(), student.state_dict(), rtol=0, atol=0)
