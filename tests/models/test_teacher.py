"""The frozen teacher, and every folder that is none: refused in one sentence."""

import json

import pytest
import torch
from transformers import GPT2Config

from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.models.family import family_named, family_of, known_families
from dq_lightning.models.layer_mapping import LayerMapping
from dq_lightning.models.teacher import (
    Teacher,
    load_config,
    load_teacher,
    resolve_path,
    weights_digest,
)

MAPPING = LayerMapping((1, 3), (2,))


@pytest.fixture
def folder(make_bart, tmp_path):
    make_bart().save_pretrained(tmp_path)
    build_g2p_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def load(folder):
    family = family_of(load_config(str(folder)))
    return load_teacher(str(folder), family)


def edit_config(**changes):
    def edit(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return edit


def remove(pattern):
    def edit(folder):
        for file in folder.glob(pattern):
            file.unlink()

    return edit


def larger_tokenizer(folder):
    tokenizer = build_g2p_tokenizer()
    tokenizer.add_tokens(["QQ"])
    tokenizer.save_pretrained(folder)


def no_padding_token(folder):
    tokenizer = build_g2p_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)


def test_a_complete_folder_loads_in_float32(folder, make_bart):
    model, tokenizer = load(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert len(tokenizer) == 70
    torch.testing.assert_close(model.state_dict(), make_bart().state_dict(), rtol=0, atol=0)


def test_half_precision_weights_load_in_float32(folder, make_bart):
    make_bart().half().save_pretrained(folder)
    assert {p.dtype for p in load(folder)[0].parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (remove("*.safetensors"), r"holds no weights; it needs model\.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), r"the weights cannot be loaded"),
        (edit_config(encoder_ffn_dim=48), r"do not fit the config, the first is model\.encoder"),
        (edit_config(vocab_size=71), r"2 weights are missing or do not fit"),
        (edit_config(encoder_layers=5), r"16 weights are missing .* model\.encoder\.layers\.4"),
        (remove("tokenizer*"), r"holds no tokenizer; save one there"),
        (lambda f: (f / "tokenizer.json").write_text("{"), r"holds no readable tokenizer"),
        (larger_tokenizer, r"it has 71 tokens, the model only 70 embeddings"),
        (edit_config(pad_token_id=3), r"its padding token is 0, the model's is 3"),
        (no_padding_token, r"its padding token is None, the model's is 0"),
        (edit_config(model_type="gpt2"), r"of type 'gpt2'; this project distils bart, .*t5\.$"),
        (edit_config(model_type="nonsense"), r"no readable model config"),
        (remove("config.json"), r"no readable model config; give a hub name or a folder"),
        (lambda f: (f / "config.json").write_text("{"), r"no readable model config"),
    ],
    ids=["no weights", "bytes", "shape", "vocabulary", "too few layers", "no tokenizer",
         "bad tokenizer", "big tokenizer", "wrong pad", "no pad", "gpt2", "nonsense", "no config",
         "bad config"],
)  # fmt: skip
def test_a_folder_that_is_no_teacher_is_refused_in_one_sentence(folder, spoil, sentence):
    spoil(folder)
    with pytest.raises(ValueError, match=sentence) as raised:
        load(folder)
    text = str(raised.value)
    assert "teacher.path" in text
    assert text.endswith(".")
    assert len(text.splitlines()) == 1
    assert len(text) < 450


def test_a_path_that_does_not_exist(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"^teacher\.path=/no/where holds no readable .*\.$"):
        load_config("/no/where")


def test_resolve_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert resolve_path("~/mine") == str(tmp_path / "mine")
    assert resolve_path("facebook/bart-base") == "facebook/bart-base"
    assert resolve_path("pkg://dq_lightning.models/x/y").endswith("dq_lightning/models/x/y")
    with pytest.raises(ValueError, match=r"^teacher\.path=pkg://nowhere/x names a package .*\.$"):
        resolve_path("pkg://nowhere/x")


def test_families_are_found_and_named():
    assert {family.name for family in known_families()} == {
        *("bart", "m2m100", "marian", "mbart", "mt5", "pegasus", "t5")
    }
    assert family_named("t5").model_types == ("t5",)
    with pytest.raises(ValueError, match=r"^student\.family=mt5x is unknown; write one of .*\.$"):
        family_named("mt5x")
    with pytest.raises(ValueError, match=r"'gpt2'; this project distils bart, .*t5\.$"):
        family_of(GPT2Config())


def test_family_names_exist_in_its_models(teacher_model):
    family = family_of(teacher_model.config)
    names = set(teacher_model.state_dict())
    assert isinstance(teacher_model, family.model_class)
    assert family.head in dict(teacher_model.named_modules())
    layers = family.num_layers(teacher_model.config)
    prefixes = (family.encoder_layer_prefix, family.decoder_layer_prefix)
    for prefix, count in zip(prefixes, layers, strict=True):
        numbers = {name.removeprefix(prefix).split(".")[0] for name in names
                   if name.startswith(prefix)}  # fmt: skip
        assert numbers == {str(n) for n in range(count)}
    suffixes = family.first_layer_only
    assert all(any(name.endswith(f"0.{s}") for name in names) for s in suffixes)
    assert not any(name.endswith(f"1.{s}") for name in names for s in suffixes)
    assert all(hasattr(teacher_model.config, key) for key in family.dropout_keys)


def test_the_teacher_is_frozen_and_out_of_training_mode(teacher_model, inputs):
    outputs = Teacher(teacher_model.train(), MAPPING)(inputs)
    assert not teacher_model.training
    assert not any(p.requires_grad for p in teacher_model.parameters())
    assert not outputs.logits.requires_grad
    assert not outputs.logits.is_inference()  # such a tensor could not be saved for backward


def test_nothing_is_recorded_that_no_loss_reads(teacher_model, inputs):
    teacher_model.set_attn_implementation("eager")
    teacher = Teacher(teacher_model, MAPPING)
    assert teacher(inputs).encoder_hidden_states is None
    assert teacher(inputs).encoder_attentions is None
    assert teacher(inputs).past_key_values is None
    assert len(teacher(inputs, {"hidden_states"}).encoder_hidden_states) == 3
    assert len(teacher(inputs, {"attentions"}).cross_attentions) == 1


def test_digest_changes_with_any_weight_and_only_then(teacher_model):
    first = weights_digest(teacher_model)
    assert first == weights_digest(teacher_model)
    for tensor in teacher_model.state_dict().values():
        value = tensor.view(-1)
        before = value[-1].clone()
        value[-1] = torch.nextafter(before, torch.tensor(9.0))
        assert weights_digest(teacher_model) != first
        value[-1] = before
    assert weights_digest(teacher_model) == first


def test_digest_survives_saving(folder, make_bart):
    assert weights_digest(load(folder)[0]) == weights_digest(make_bart())
