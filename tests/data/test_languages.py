"""Tokenizers that mark texts with a language, and the models that generate with them."""

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoTokenizer,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    NllbTokenizer,
)

from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.data.languages import language_settings, set_languages
from dq_lightning.data.source import DataSource, to_dataset
from dq_lightning.data.tokenization import TokenizationConfig, tokenized_splits
from dq_lightning.evaluation.generation import TextGenerator

WORDS = ["▁the", "▁red", "▁fox", "▁vulpea", "▁roșie"]
SIZES = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "init_std": 0.3,
    "max_position_embeddings": 64, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def mbart_tokenizer():
    from transformers import MBartTokenizer
    from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *WORDS, *FAIRSEQ_LANGUAGE_CODES, "<mask>"]
    return MBartTokenizer(vocab=[(piece, -float(n)) for n, piece in enumerate(pieces)])


def mbart50_tokenizer():
    return MBart50Tokenizer()


def nllb_tokenizer():
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *WORDS]
    return NllbTokenizer(vocab={piece: n for n, piece in enumerate(pieces)})


def model_for(tokenizer, config_class, model_class, **more):
    torch.manual_seed(0)
    config = config_class(vocab_size=len(tokenizer), forced_eos_token_id=2, **SIZES, **more)
    return model_class(config).eval()


# tokenizer, source and target code, where the target's code stands, the model
MBART = (mbart_tokenizer, "en_XX", "ro_RO", -1, (MBartConfig, MBartForConditionalGeneration))
MBART50 = (mbart50_tokenizer, "en_XX", "ro_RO", 0, (MBartConfig, MBartForConditionalGeneration))
NLLB = (
    nllb_tokenizer, "eng_Latn", "ron_Latn", 0, (M2M100Config, M2M100ForConditionalGeneration),
)  # fmt: skip
FAMILIES = pytest.mark.parametrize(
    ("make", "source", "target", "place", "model"), [MBART, MBART50, NLLB],
    ids=["mbart", "mbart50", "nllb"],
)  # fmt: skip


class Pair(DataSource):
    def fingerprint(self):
        return "pair"

    def splits(self) -> dict[str, Dataset]:
        pair = {"source": "the red fox", "references": ["vulpea roșie"]}
        return {name: to_dataset([pair], name) for name in ("train", "validation", "test")}


@FAMILIES
def test_texts_and_targets_carry_their_own_code(tmp_path, make, source, target, place, model):
    tokenizer = make()
    set_languages(tokenizer, source, target)
    config = TokenizationConfig(16, 16)
    splits, key = tokenized_splits(Pair(), tokenizer, config, tmp_path)
    row = splits["train"][0]
    codes = tokenizer.convert_tokens_to_ids([source, target])
    assert [row["input_ids"][place], row["labels"][place]] == codes
    assert row["labels"].count(codes[1]) == 1 and codes[0] not in row["labels"]
    set_languages(tokenizer, target, source)
    _, other = tokenized_splits(Pair(), tokenizer, config, tmp_path)
    assert other != key


@FAMILIES
def test_generation_begins_with_the_targets_code(make, source, target, place, model):
    tokenizer = make()
    set_languages(tokenizer, source, target)
    settings = language_settings(tokenizer)
    code = tokenizer.convert_tokens_to_ids(target)
    assert list(settings.values()) == [code]
    random = model_for(tokenizer, *model, decoder_start_token_id=2)
    ids = random.generate(**tokenizer("the red fox", return_tensors="pt"), **settings,
                          num_beams=2, do_sample=False, max_length=8)[0].tolist()  # fmt: skip
    assert ids.index(code) == (1 if place == 0 else 0)
    text = TextGenerator(tokenizer, {**settings, "max_length": 8})(
        random, tokenizer(["the red fox"], return_tensors="pt")
    )
    assert target not in text[0]


@FAMILIES
def test_training_feeds_the_decoder_what_generation_starts_with(make, source, target, place, model):
    """The labels' shift by one puts the code where generation has it."""
    tokenizer = make()
    set_languages(tokenizer, source, target)
    random = model_for(tokenizer, *model, decoder_start_token_id=2)
    labels = torch.tensor([tokenizer(text_target="vulpea").input_ids])
    seen = []
    random.model.decoder.register_forward_pre_hook(
        lambda module, arguments, given: seen.append(given["input_ids"]), with_kwargs=True
    )
    random(input_ids=labels, labels=labels)
    fed = seen[0][0].tolist()
    code = tokenizer.convert_tokens_to_ids(target)
    assert (fed[0] == code) if place == -1 else (fed[1] == code and fed[0] == 2)


@FAMILIES
def test_a_saved_tokenizer_keeps_its_languages(tmp_path, make, source, target, place, model):
    tokenizer = make()
    set_languages(tokenizer, target, source)
    tokenizer.save_pretrained(tmp_path)
    random = model_for(tokenizer, *model)
    random.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    set_languages(again, None, None)
    assert (again.src_lang, again.tgt_lang) == (target, source)
    assert language_settings(again) == language_settings(tokenizer)
    assert again("the fox").input_ids == tokenizer("the fox").input_ids


@pytest.mark.parametrize(
    ("source", "target", "sentence"),
    [
        ("en_XX", None, "data.target_language is null, but .* write data.target_language=<code>"),
        ("en_XX", "ro", "data.target_language=ro is no language .* such as .*ro_RO"),
        ("english", "ro_RO", "data.source_language=english is no language"),
    ],
)
def test_a_code_that_does_not_fit_is_one_sentence(source, target, sentence):
    with pytest.raises(ValueError, match=sentence):
        set_languages(mbart_tokenizer(), source, target)
    with pytest.raises(ValueError, match=r"data\.source_language=en_XX .* eng_Latn"):
        set_languages(nllb_tokenizer(), "en_XX", "ro_RO")


def test_a_tokenizer_without_languages_is_left_alone():
    tokenizer = build_g2p_tokenizer()
    before = tokenizer("cat").input_ids
    set_languages(tokenizer, "en_XX", "ro_RO")
    assert language_settings(tokenizer) == {}
    assert tokenizer("cat").input_ids == before and not hasattr(tokenizer, "src_lang")
