"""The default recipe holds on every family: what is swapped, and what may not change the result."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from dq_lightning.choices import build_recipe
from dq_lightning.models.family import family_of
from dq_lightning.models.layer_mapping import LayerMapping
from dq_lightning.models.student import student_from_teacher
from dq_lightning.quantization.modules import FakeQuantizedEmbedding, FakeQuantizedLinear
from dq_lightning.quantization.prepare import prepare

CONF = Path(__file__).parents[2] / "conf"
SHRUNK = LayerMapping((1, 3), (2,))


@pytest.fixture(scope="module")
def recipe():
    def build(*overrides):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return build_recipe(compose("train", list(overrides)).quant)

    return build


@pytest.fixture
def prepared(teacher_model, recipe):
    def build(*overrides):
        family = family_of(teacher_model.config)
        student = student_from_teacher(teacher_model, family, SHRUNK).eval()
        return student, prepare(student, recipe(*overrides), family)

    return build


def test_every_matrix_but_the_positions_is_swapped(teacher_model, prepared):
    student, report = prepared()
    family = family_of(teacher_model.config)
    for name, module in student.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert type(module) is FakeQuantizedLinear, name
        if isinstance(module, torch.nn.Embedding):
            assert (type(module) is FakeQuantizedEmbedding) == (name in report.swapped), name
    attentions = {n for n, m in student.named_modules() if type(m) in family.attention_types}
    assert len(attentions) == 2 + 2 * 1  # encoder; decoder's self and cross attention
    assert attentions <= set(report.swapped)
    assert all("position" in name or "relative" in name for name in report.skipped)
    assert family.head in report.swapped


def test_ties_share_one_quantizer(teacher_model, prepared):
    student, report = prepared()
    tables = {}
    for name, parameter in student.named_parameters(remove_duplicate=False):
        if name.endswith(".weight"):  # not a table's learned steps, which are shared with it
            tables.setdefault(id(parameter), set()).add(name.removesuffix(".weight"))
    assert {frozenset(names) for names in report.ties} == {
        frozenset(names) for names in tables.values() if len(names) > 1
    }
    for names in report.ties:
        assert len({id(student.get_submodule(name).weight_quantizer) for name in names}) == 1


def test_padding_and_batch_size_change_nothing(prepared, inputs):
    student = prepared("quant.bits=8")[0].double()  # float noise would cross rounding steps
    with torch.no_grad():
        together = student(**inputs).logits
        for row in range(3):
            length = int(inputs["attention_mask"][row].sum())
            alone = {name: value[row : row + 1] for name, value in inputs.items()}
            for name in ("input_ids", "attention_mask"):
                alone[name] = alone[name][:, :length]
            torch.testing.assert_close(student(**alone).logits[0], together[row], rtol=0, atol=1e-9)


def test_generation_with_and_without_the_cache_agrees(prepared, inputs):
    student = prepared("quant.bits=8")[0].double()
    source = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "num_beams": 1}
    cached = student.generate(**source, **options)
    assert torch.equal(cached, student.generate(**source, use_cache=False, **options))
    assert student.generate(**source, max_new_tokens=4, num_beams=2).shape[0] == 3


def test_one_training_step_reaches_every_trained_parameter(prepared, inputs):
    student = prepared()[0].train()
    outputs = student(**inputs, output_hidden_states=True, use_cache=False)
    lengths = len(outputs.encoder_hidden_states), len(outputs.decoder_hidden_states)
    assert lengths == (3, 2)
    outputs.logits.square().mean().backward()
    without = [n for n, p in student.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_a_prepared_student_saves_and_reloads_bit_exactly(teacher_model, prepared, recipe, inputs,
                                                          tmp_path):  # fmt: skip
    student, report = prepared()
    student.save_pretrained(tmp_path)
    loaded = type(teacher_model).from_pretrained(tmp_path).eval()
    assert prepare(loaded, recipe(), family_of(loaded.config)) == report
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, student(**inputs).logits)
