"""Training rows whose targets a teacher wrote."""

import pytest
import torch

from dq_lightning.data.datamodule import Seq2SeqDataModule
from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.data.pseudo_labels import PseudoLabels, distinct
from dq_lightning.data.source import DataSource, to_dataset
from dq_lightning.data.tokenization import TokenizationConfig

ROWS = [
    {"source": "a", "references": ["AA"]},
    {"source": "b", "references": ["B"]},
    {"source": "a", "references": ["AE"]},
    {"source": "c", "references": ["K"]},
]
TEXTS = ["AH", " ", "S"]  # of a, b and c


def rows():
    return to_dataset(ROWS, "rows")


def pairs(source):
    return [(row["source"], row["references"]) for row in source.splits()["train"]]


def test_each_source_is_asked_for_once():
    assert distinct(rows())["source"][:] == ["a", "b", "c"]
    assert distinct(rows())["references"][:] == [["AA"], ["B"], ["K"]]


def test_replace_trains_on_what_was_generated():
    source = PseudoLabels(rows(), TEXTS, "replace")
    assert pairs(source) == [("a", ["AH"]), ("b", ["B"]), ("c", ["S"])]
    assert source.num_empty == 1


def test_add_trains_on_both():
    source = PseudoLabels(rows(), TEXTS, "add")
    assert pairs(source) == [("a", ["AA", "AE", "AH"]), ("b", ["B"]), ("c", ["K", "S"])]


def test_other_targets_are_refused():
    with pytest.raises(ValueError, match=r"^pseudo_label\.targets=mix is .*replace or add\.$"):
        PseudoLabels(rows(), TEXTS, "mix")


def test_a_text_is_wanted_for_every_source():
    with pytest.raises(ValueError):
        PseudoLabels(rows(), TEXTS[:2]).splits()


def test_the_fingerprint_is_of_the_content():
    prints = {
        PseudoLabels(rows(), texts, targets).fingerprint()
        for texts in (TEXTS, ["AH", "D", "S"], ["AH", "S", " "])
        for targets in ("replace", "add")
    }
    assert len(prints) == 6
    assert PseudoLabels(rows(), TEXTS).fingerprint() == PseudoLabels(rows(), TEXTS).fingerprint()


class Letters(DataSource):
    """The rows above for training, one for validation."""

    def fingerprint(self):
        return "letters of the pseudo-label test"

    def splits(self):
        return {"train": rows(), "validation": to_dataset(ROWS[:1], "validation")}


def data_module(folder, **settings):
    return Seq2SeqDataModule(
        Letters(), build_g2p_tokenizer(), TokenizationConfig(16, 16), cache_dir=folder,
        batch_size=8, eval_batch_size=4, seed=1, **settings,
    )  # fmt: skip


@pytest.mark.parametrize(("targets", "count"), [("replace", 3), ("add", 6)])
def test_training_rows_change_and_the_others_stay(tmp_path, targets, count):
    module = data_module(tmp_path)
    before, key = module.split("validation")[:], module.key
    module.setup()
    module.train_on(PseudoLabels(module.split("train"), TEXTS, targets))
    assert len(module.split("train")) == count
    assert (module.split("validation")[:], module.key) == (before, key)
    (batch,) = module.train_dataloader()
    decode = module.tokenizer.batch_decode
    labels = decode(batch["labels"].clamp(min=0), skip_special_tokens=True)
    expected = ["AH", "B", "S"] + ["AA", "AE", "K"] * (targets == "add")
    assert sorted(label.strip() for label in labels) == sorted(expected)


def test_batches_of_any_rows_name_them(tmp_path):
    module = data_module(tmp_path)
    chosen = distinct(module.split("train"))
    batches = list(module.batches(chosen, 2))
    assert sorted(torch.cat([batch["index"] for batch in batches]).tolist()) == [0, 1, 3]
