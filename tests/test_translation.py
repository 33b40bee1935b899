"""A translation teacher from config to scores: its languages reach texts, labels and decoder."""

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from transformers import MBartConfig, MBartForConditionalGeneration, MBartTokenizer
from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES

from dq_lightning.composition import build_parts
from dq_lightning.evaluation.evaluate import evaluate

CONF = Path(__file__).parents[1] / "conf"
PAIR = {"translation": {"en": "the red fox", "ro": "vulpea roșie"}}


@pytest.fixture
def overrides(tmp_path):
    """data=wmt16_en_ro's keys on a local file, and a random mBART of 2-2 layers."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁the", "▁red", "▁fox", "▁vulpea", "▁roșie"]
    pieces += [*FAIRSEQ_LANGUAGE_CODES, "<mask>"]
    tokenizer = MBartTokenizer(vocab=[(piece, -float(n)) for n, piece in enumerate(pieces)])
    torch.manual_seed(0)
    config = MBartConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24,
        decoder_ffn_dim=24, max_position_embeddings=256, init_std=0.3,
    )  # fmt: skip
    MBartForConditionalGeneration(config).save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(f"{json.dumps(PAIR)}\n" * 3, encoding="utf-8")
    wmt = compose_with("data=wmt16_en_ro").data
    files = [f"data.{split}={pairs}" for split in ("train", "validation", "test")]
    keys = ("source", "target", "source_language", "target_language", "max_source_length")
    return [
        "data=jsonl", "metric=bleu", "teacher=hub", f"teacher.path={tmp_path / 'teacher'}", *files,
        *(f"data.{key}={wmt[key]}" for key in keys), "student.layers=2-1",
        *(f"data.generation.{key}={wmt.generation[key]}" for key in wmt.generation),
        "data.generation.max_length=12", f"paths.cache={tmp_path / 'cache'}",
        f"paths.output_dir={tmp_path}", "trainer.accelerator=cpu",
    ]  # fmt: skip


def compose_with(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def test_mbart_translates_from_english_to_romanian(overrides):
    parts = build_parts(compose_with(*overrides))
    tokenizer = parts.tokenizer
    english, romanian = tokenizer.convert_tokens_to_ids(["en_XX", "ro_RO"])
    batch = next(iter(parts.data.test_dataloader()))
    assert batch["input_ids"][0].tolist() == [*tokenizer.encode("the red fox")]
    assert batch["input_ids"][0, -2:].tolist() == [2, english]
    assert batch["labels"][0, -2:].tolist() == [2, romanian]
    assert parts.generator.settings["decoder_start_token_id"] == romanian
    assert parts.generator.settings["num_beams"] == 5
    references = list(parts.data.references("test").values())
    loader = parts.data.test_dataloader()
    result = evaluate(parts.student, loader, references, parts.generator, parts.metric)
    assert set(result.scores) == {"bleu", "chrf"}
    assert "nrefs:1|case:mixed|eff:no|tok:13a" in parts.metric.recipe


def test_a_null_setting_of_generation_is_the_teachers_own(overrides):
    cfg = compose_with(*overrides, "data.generation.no_repeat_ngram_size=null")
    assert "no_repeat_ngram_size" not in build_parts(cfg).generator.settings


def test_the_wrong_codes_stop_before_any_text_is_tokenized(overrides, tmp_path):
    with pytest.raises(ValueError, match=r"^data\.target_language=ron_Latn is no language"):
        build_parts(compose_with(*overrides, "data.target_language=ron_Latn"))
    assert not (tmp_path / "cache").exists()
