"""What `record` keeps of a forward pass, on every family, and that no hook outlives it."""

import contextlib
import math

import pytest
import torch
from torch import Tensor, nn

from dq_lightning.models.family import family_of
from dq_lightning.models.layer_mapping import LayerMapping
from dq_lightning.models.recording import (
    ATTENTION_STATES,
    RecordedOutput,
    attention_width,
    record,
)
from dq_lightning.models.student import student_from_teacher
from dq_lightning.models.teacher import Teacher
from dq_lightning.quantization.prepare import prepare
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.quantization.symmetric import SymmetricQuantizer

STACKS = ("encoder", "decoder")
NAMES = tuple(f"{stack}_{kind}" for stack in STACKS for kind in ATTENTION_STATES)
SHRUNK = LayerMapping((1, 3), (2,))
ALL = ("hidden_states", *ATTENTION_STATES)
NORMS = {"t5": "layer.0.layer_norm", "mt5": "layer.0.layer_norm"}
NORMS |= dict.fromkeys(("mbart", "pegasus", "m2m100"), "self_attn_layer_norm")
"""The norm before self-attention, for the families that have it there."""


def quantizer() -> SymmetricQuantizer:
    return SymmetricQuantizer(8, "per_token")


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def projection(model: nn.Module, name: str, layer: int) -> str:
    """The module that gives the states of a layer."""
    stack, _, kind = name.partition("_")
    family = family_of(model.config)
    t5 = family.name in ("t5", "mt5")
    own = f"layer.0.SelfAttention.{kind[0]}" if t5 else f"self_attn.{kind[0]}_proj"
    return f"{getattr(family, f'{stack}_layer_prefix')}{layer}.{own}"


def by_hand(model: nn.Module, outputs: RecordedOutput, name: str, layer: int) -> Tensor:
    """The projection of what enters the layer."""
    stack = name.partition("_")[0]
    family = family_of(model.config)
    state = outputs[f"{stack}_hidden_states"][layer]
    if family.name in NORMS:
        prefix = getattr(family, f"{stack}_layer_prefix")
        state = model.get_submodule(f"{prefix}{layer}.{NORMS[family.name]}")(state)
    return model.get_submodule(projection(model, name, layer))(state)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "fake_quantized"])
def test_states_are_the_projections_of_the_layers_input(teacher_model, inputs, attention):
    family = family_of(teacher_model.config)
    model = student_from_teacher(teacher_model, family, SHRUNK).eval()
    if attention == "fake_quantized":
        prepare(model, QuantizationRecipe(*[quantizer] * 4), family)
    else:
        model.set_attn_implementation(attention)
    with torch.no_grad():
        outputs = record(model, inputs, ALL)
        for name in NAMES:
            assert len(outputs[name]) == (2 if name.startswith("encoder") else 1)
            for layer, states in enumerate(outputs[name]):
                exact = by_hand(model, outputs, name, layer)
                torch.testing.assert_close(states, exact, rtol=0, atol=0)
                assert states.shape[-1] == attention_width(model)


def test_queries_and_keys_give_the_attention_maps(teacher_model, inputs):
    """T5 adds positions to the products, so it is left to the test above."""
    family = family_of(teacher_model.config)
    if family.name in ("t5", "mt5"):
        pytest.skip("its attention has a position bias")
    teacher_model.set_attn_implementation("eager")
    with torch.no_grad():
        outputs = record(teacher_model, inputs, ("attentions", "query_states", "key_states"))
    width = attention_width(teacher_model) // 2
    query, key = (
        outputs[f"encoder_{kind}_states"][-1].unflatten(-1, (2, width)).transpose(1, 2)
        for kind in ("query", "key")
    )
    scores = query @ key.mT / math.sqrt(width)
    scores = scores.masked_fill(inputs["attention_mask"][:, None, None] == 0, -torch.inf)
    torch.testing.assert_close(scores.softmax(-1), outputs.encoder_attentions[-1])


@pytest.mark.parametrize("requires", [(), ("key_states",), ("hidden_states", "value_states")])
def test_only_what_is_required_is_recorded(teacher_model, inputs, requires):
    with torch.no_grad():
        outputs = record(teacher_model, inputs, requires)
        plain = teacher_model(**inputs, use_cache=False)
    states = {name for name in outputs if name in NAMES}
    assert states == {name for name in NAMES if name.endswith(requires or ("nothing",))}
    assert (outputs.encoder_hidden_states is not None) == ("hidden_states" in requires)
    assert outputs.encoder_attentions is None and outputs.past_key_values is None
    assert torch.equal(outputs.logits, plain.logits)


def test_no_hook_outlives_the_forward_pass(teacher_model, inputs):
    before = hooks(teacher_model)
    first, second = (record(teacher_model, inputs, ATTENTION_STATES) for _ in range(2))
    assert hooks(teacher_model) == before
    for name in NAMES:
        assert len(first[name]) == len(second[name])
        assert all(a is not b for a, b in zip(first[name], second[name], strict=True))
    ids = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    teacher_model.generate(**ids, max_new_tokens=3)
    assert len(second.encoder_query_states) == 4  # as many as layers, still
    with contextlib.suppress(TypeError):
        record(teacher_model, {**inputs, "unheard_of": None}, ATTENTION_STATES)
    assert hooks(teacher_model) == before


def test_the_student_has_a_gradient_and_the_teacher_none(teacher_model, inputs):
    family = family_of(teacher_model.config)
    student = student_from_teacher(teacher_model, family, SHRUNK).train()
    outputs = record(student, inputs, ATTENTION_STATES)
    for name in NAMES:
        student.zero_grad()
        outputs[name][-1].square().sum().backward(retain_graph=True)
        reached = {n for n, p in student.named_parameters() if p.grad is not None and p.grad.any()}
        assert f"{projection(student, name, len(outputs[name]) - 1)}.weight" in reached
        assert any("embed" in n or "shared" in n for n in reached)  # and through all before it
    aligned = Teacher(teacher_model, SHRUNK)(inputs, ATTENTION_STATES)
    assert not any(tensor.requires_grad for name in NAMES for tensor in aligned[name])


def test_the_teacher_gives_the_states_of_the_mapped_layers(teacher_model, inputs):
    with torch.no_grad():
        everything = record(teacher_model.eval(), inputs, ATTENTION_STATES)
    aligned = Teacher(teacher_model, SHRUNK)(inputs, ATTENTION_STATES)
    for name in NAMES:
        layers = SHRUNK.encoder if name.startswith("encoder") else SHRUNK.decoder
        for mine, layer in zip(aligned[name], layers, strict=True):
            assert torch.equal(mine, everything[name][layer])


def test_attention_width_is_not_always_the_models(teacher_model):
    t5 = family_of(teacher_model.config).name in ("t5", "mt5")
    assert teacher_model.config.hidden_size == 16
    assert attention_width(teacher_model) == (8 if t5 else 16)
