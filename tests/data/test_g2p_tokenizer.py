from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from dq_lightning.data.cmudict import LETTERS, PHONEMES
from dq_lightning.data.g2p_tokenizer import SPECIAL_TOKENS, build_g2p_tokenizer

tokenizer = build_g2p_tokenizer()


def test_one_token_a_letter_or_phoneme():
    assert len(tokenizer) == len(SPECIAL_TOKENS) + 27 + 39
    assert tokenizer.convert_ids_to_tokens(tokenizer("don't").input_ids) == [*"don't", "</s>"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("K AE T").input_ids) == [
        "K", "AE", "T", "</s>",
    ]  # fmt: skip


@given(st.lists(st.sampled_from(PHONEMES), min_size=1, max_size=40))
def test_phonemes_round_trip(phonemes):
    ids = tokenizer(" ".join(phonemes)).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == " ".join(phonemes)


@given(st.text(LETTERS, min_size=1, max_size=40))
def test_words_round_trip(word):
    ids = tokenizer(word).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == word


def test_what_it_does_not_know_is_unknown_and_never_lost():
    ids = tokenizer("caté").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["c", "a", "t", "<unk>", "</s>"]


def test_saved_and_loaded_it_is_the_same(tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("cat", "K AE T", "don't"):
        assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.pad_token_id == tokenizer.pad_token_id == 0
