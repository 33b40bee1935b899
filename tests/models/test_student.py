"""Students hold their teacher's layers, bit for bit, in memory of their own."""

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.models.family import family_named, family_of
from dq_lightning.models.layer_mapping import LayerMapping, layer_mapping
from dq_lightning.models.student import student_from_scratch, student_from_teacher
from dq_lightning.models.teacher import Teacher

IDENTITY = LayerMapping((0, 1, 2, 3), (0, 1, 2))
SHRUNK = LayerMapping((1, 3), (2,))  # without the first layer of either stack


def exactly_equal(left, right):
    torch.testing.assert_close(left, right, rtol=0, atol=0)


def shrunk(model):
    return student_from_teacher(model, family_of(model.config), SHRUNK).eval()


@torch.no_grad()
def test_identity_mapping_is_bit_exact(teacher_model, inputs):
    student = student_from_teacher(teacher_model, family_of(teacher_model.config), IDENTITY).eval()
    settings = {**inputs, "output_hidden_states": True, "use_cache": False}
    expected, actual = teacher_model(**settings), student(**settings)
    exactly_equal(actual.logits, expected.logits)
    exactly_equal(actual.encoder_hidden_states, expected.encoder_hidden_states)
    exactly_equal(actual.decoder_hidden_states, expected.decoder_hidden_states)


@torch.no_grad()
def test_a_teacher_read_from_disk_is_copied_just_as_exactly(teacher_model, inputs, tmp_path):
    teacher_model.save_pretrained(tmp_path)
    loaded = type(teacher_model).from_pretrained(tmp_path).eval()
    student = student_from_teacher(loaded, family_of(loaded.config), IDENTITY).eval()
    exactly_equal(student(**inputs).logits, teacher_model(**inputs).logits)
    assert student.num_parameters() == loaded.num_parameters()  # neither tied nor untied more


def test_the_head_is_tied_as_the_teachers_is(teacher_model):
    def tied_with_the_head(model):
        named = model.named_parameters(remove_duplicate=False)
        return {name for name, value in named if value is model.lm_head.weight}

    student = shrunk(teacher_model)
    assert tied_with_the_head(student) == tied_with_the_head(teacher_model)


def test_no_layer_is_dropped_in_training(teacher_model, inputs):
    for key in family_of(teacher_model.config).layer_dropout_keys:
        setattr(teacher_model.config, key, 1.0)
    student = shrunk(teacher_model).train()
    outputs = student(**inputs, output_hidden_states=True, use_cache=False)
    assert len(outputs.encoder_hidden_states) == 3
    assert len(outputs.decoder_hidden_states) == 2


def test_shrunk_student_has_the_hand_picked_layers(teacher_model):
    family = family_of(teacher_model.config)
    theirs, ours = teacher_model.state_dict(), shrunk(teacher_model).state_dict()
    stacks = (
        (family.encoder_layer_prefix, SHRUNK.encoder),
        (family.decoder_layer_prefix, SHRUNK.decoder),
    )
    for name, value in ours.items():
        source = name
        for prefix, layers in stacks:
            if name.startswith(prefix) and "relative_attention_bias" not in name:
                number, rest = name.removeprefix(prefix).split(".", 1)
                source = f"{prefix}{layers[int(number)]}.{rest}"
        exactly_equal(value, theirs[source])
    assert family.num_layers(shrunk(teacher_model).config) == (2, 1)


@torch.no_grad()
def test_shrunk_student_saves_and_reloads_bit_exactly(teacher_model, inputs, tmp_path):
    student = shrunk(teacher_model)
    student.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    exactly_equal(loaded(**inputs).logits, student(**inputs).logits)
    settings = {"num_beams": 2, "max_new_tokens": 4, "do_sample": False}
    exactly_equal(
        loaded.generate(inputs["input_ids"], **settings),
        student.generate(inputs["input_ids"], **settings),
    )


@torch.no_grad()
def test_t5_without_block_0_keeps_the_relative_position_bias(teacher_model, inputs):
    if not family_of(teacher_model.config).first_layer_only:
        pytest.skip("a relative position bias is T5's")
    student = shrunk(teacher_model)
    for stack in ("encoder", "decoder"):
        theirs, ours = (getattr(model, stack).block[0] for model in (teacher_model, student))
        bias = "layer.0.SelfAttention.relative_attention_bias"
        exactly_equal(ours.get_submodule(bias).weight, theirs.get_submodule(bias).weight)
    before = student(**inputs).logits
    ours.get_submodule(bias).weight.mul_(3.0)
    assert not torch.equal(student(**inputs).logits, before)  # and it is used


def test_training_one_does_not_change_the_other(teacher_model):
    student = shrunk(teacher_model)
    before = {name: value.clone() for name, value in teacher_model.state_dict().items()}
    pointers = {value.data_ptr() for value in before.values()}
    assert not pointers & {value.data_ptr() for value in student.state_dict().values()}
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    for name, value in teacher_model.state_dict().items():
        exactly_equal(value, before[name])
    student.config.vocab_size = student.generation_config.max_length = -1
    assert teacher_model.config.vocab_size > 0
    assert teacher_model.generation_config.max_length != -1


def test_student_keeps_the_teachers_generation_settings(teacher_model):
    teacher_model.generation_config.num_beams = 7
    assert shrunk(teacher_model).generation_config.num_beams == 7


@pytest.mark.parametrize("dropout", [None, 0.0, 0.3])
def test_dropout_is_the_teachers_or_the_one_asked_for(teacher_model, dropout):
    family = family_of(teacher_model.config)
    student = student_from_teacher(teacher_model, family, SHRUNK, dropout)
    for key in family.dropout_keys:
        wanted = getattr(teacher_model.config, key) if dropout is None else dropout
        assert getattr(student.config, key) == wanted
    rates = {m.p for m in student.modules() if isinstance(m, torch.nn.Dropout)}
    assert dropout is None or rates <= {dropout}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_student_has_the_teachers_dtype(teacher_model, dtype):
    assert {p.dtype for p in shrunk(teacher_model.to(dtype)).parameters()} == {dtype}


def test_student_outputs_have_the_aligned_teachers_lengths(teacher_model, inputs):
    teacher_model.set_attn_implementation("eager")
    student = shrunk(teacher_model)
    requires = {"hidden_states", "attentions"}
    aligned = Teacher(teacher_model, SHRUNK)(inputs, requires)
    outputs = student(**inputs, output_hidden_states=True, output_attentions=True, use_cache=False)
    for name in ("encoder_hidden_states", "decoder_hidden_states", "encoder_attentions",
                 "decoder_attentions", "cross_attentions"):  # fmt: skip
        assert [t.shape for t in aligned[name]] == [t.shape for t in outputs[name]]
    exactly_equal(aligned.encoder_hidden_states[0], outputs.encoder_hidden_states[0])


def test_from_scratch_has_the_layers_and_the_tokenizers_ids():
    tokenizer = build_g2p_tokenizer()
    sizes = {"d_model": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
             "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "max_position_embeddings": 64}  # fmt: skip
    family = family_named("bart")
    first, second = [], []
    for models in (first, second):
        torch.manual_seed(5)
        models.append(student_from_scratch(family, tokenizer, 2, 1, sizes))
    config = first[0].config
    assert family.num_layers(config) == (2, 1)
    assert (config.vocab_size, config.d_model) == (len(tokenizer), 16)
    assert (config.pad_token_id, config.eos_token_id) == (
        tokenizer.pad_token_id,
        tokenizer.eos_token_id,
    )
    exactly_equal(first[0].state_dict(), second[0].state_dict())  # the seed decides


def test_default_mapping_of_a_teacher_by_its_own_config(teacher_model):
    layers = family_of(teacher_model.config).num_layers(teacher_model.config)
    assert layer_mapping(layers, layers) == IDENTITY
