import os

import pytest
from datasets import Dataset

from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.data.source import DataSource, file_digest, to_dataset
from dq_lightning.data.tokenization import TokenizationConfig, subset, tokenized_splits


class Words(DataSource):
    def __init__(self, mark="one", fail=False):
        self.mark, self.fail = mark, fail

    def fingerprint(self):
        return self.mark

    def splits(self):
        if self.fail:
            raise AssertionError("read again")
        pairs = [{"source": "cat", "references": ["K AE T", "K AA T"]}]
        return {name: to_dataset(pairs, name) for name in ("train", "validation", "test")}


class BrokenTokenizer(type(build_g2p_tokenizer())):
    def __call__(self, *args, **kwargs):
        raise AssertionError("tokenized again")


def broken():
    """Equal to the real tokenizer in everything but that it cannot tokenize."""
    tokenizer = build_g2p_tokenizer()
    tokenizer.__class__ = BrokenTokenizer
    return tokenizer


CONFIG = TokenizationConfig(16, 16)


def finished(folder):
    return [p for p in (folder / "tokenized").iterdir() if p.is_dir()]


def test_training_expands_references_and_evaluation_keeps_them(tmp_path):
    splits, _ = tokenized_splits(Words(), build_g2p_tokenizer(), CONFIG, tmp_path)
    assert splits["train"]["references"][:] == [["K AE T"], ["K AA T"]]
    assert splits["train"]["index"][:] == [0, 1]
    assert splits["test"]["references"][:] == [["K AE T", "K AA T"]]
    tokenizer = build_g2p_tokenizer()
    assert splits["test"]["labels"][0] == tokenizer("K AE T").input_ids
    assert splits["test"]["input_ids"][0] == tokenizer("cat").input_ids


def test_a_second_run_neither_reads_nor_tokenizes_again(tmp_path):
    _, key = tokenized_splits(Words(), build_g2p_tokenizer(), CONFIG, tmp_path)
    splits, again = tokenized_splits(Words(fail=True), broken(), CONFIG, tmp_path)
    assert again == key and len(splits["train"]) == 2


@pytest.mark.parametrize(
    ("source", "config"),
    [
        (Words("two"), CONFIG),
        (Words(), TokenizationConfig(8, 16)),
        (Words(), TokenizationConfig(16, 8)),
        (Words(), TokenizationConfig(16, 16, "say ")),
    ],
)
def test_whatever_changes_the_ids_changes_the_key(tmp_path, source, config):
    tokenizer = build_g2p_tokenizer()
    _, one = tokenized_splits(Words(), tokenizer, CONFIG, tmp_path)
    _, other = tokenized_splits(source, tokenizer, config, tmp_path)
    assert one != other


def test_another_vocabulary_changes_the_key(tmp_path):
    larger = build_g2p_tokenizer()
    larger.add_tokens(["QQ"])
    _, one = tokenized_splits(Words(), build_g2p_tokenizer(), CONFIG, tmp_path)
    _, other = tokenized_splits(Words(), larger, CONFIG, tmp_path)
    assert one != other


def test_an_interrupted_run_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    save = Dataset.save_to_disk

    def interrupted(self, path, *args, **kwargs):
        save(self, path, *args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "save_to_disk", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tokenized_splits(Words(), build_g2p_tokenizer(), CONFIG, tmp_path)
    assert finished(tmp_path) == []
    splits, _ = tokenized_splits(Words(), build_g2p_tokenizer(), CONFIG, tmp_path)
    assert len(splits["train"]) == 2


def test_what_a_killed_run_left_behind_is_not_read(tmp_path):
    _, key = tokenized_splits(Words(), build_g2p_tokenizer(), CONFIG, tmp_path)
    folder = tmp_path / "tokenized" / key
    folder.rename(folder.with_name(f"{key}.{os.getpid() + 1}.partial"))
    with pytest.raises(AssertionError, match="again"):
        tokenized_splits(Words(fail=True), broken(), CONFIG, tmp_path)


def test_long_texts_are_cut_and_keep_their_end_mark(tmp_path):
    tokenizer = build_g2p_tokenizer()
    splits, _ = tokenized_splits(Words(), tokenizer, TokenizationConfig(3, 2), tmp_path)
    assert splits["test"]["input_ids"][0][-1] == tokenizer.eos_token_id
    assert [len(splits["test"][c][0]) for c in ("input_ids", "labels")] == [3, 2]


@pytest.mark.parametrize(
    "row", [("", ["x"]), (" ", ["x"]), ("a", []), ("a", ["x", ""]), ("a", [1])]
)
def test_a_row_without_source_or_target_is_named(row):
    rows = [
        {"source": "a", "references": ["b"]},
        dict(zip(("source", "references"), row, strict=True)),
    ]
    with pytest.raises(ValueError, match=r"here, row 2: the (source|target) is empty"):
        to_dataset(rows, "here")


def test_subset_is_a_fixed_draw_in_order():
    rows = Dataset.from_dict({"x": list(range(100))})
    drawn = list(subset(rows, 10)["x"])
    assert len(set(drawn)) == 10 and drawn == sorted(drawn) == list(subset(rows, 10)["x"])
    assert len(subset(rows, None)) == len(subset(rows, 900)) == 100


def test_file_digest_is_sha256(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert file_digest(tmp_path / "f").startswith("ba7816bf")
