import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning.callbacks import ModelCheckpoint

from dq_lightning.data.datamodule import IGNORE_INDEX, Seq2SeqDataModule
from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.data.source import DataSource, to_dataset
from dq_lightning.data.tokenization import TokenizationConfig


class Letters(DataSource):
    """Fifty words of 1 to 10 letters for training, a few for the rest."""

    def fingerprint(self):
        return "letters"

    def splits(self):
        rows = [{"source": "a" * (1 + i % 10), "references": ["K " * (1 + i % 7)]}
                for i in range(50)]  # fmt: skip
        return {"train": to_dataset(rows, "train"), "validation": to_dataset(rows[:5], "v")}


def data_module(folder, **settings):
    return Seq2SeqDataModule(
        Letters(),
        build_g2p_tokenizer(),
        TokenizationConfig(16, 16),
        cache_dir=folder,
        seed=1,
        **{"batch_size": 8, "eval_batch_size": 4, **settings},
    )


ids = st.lists(st.integers(1, 69), min_size=1, max_size=9)


@given(st.lists(st.tuples(ids, ids), min_size=1, max_size=6))
def test_collate_masks_all_padding_and_nothing_else(pairs):
    module = data_module("unused")
    batch = module.collate(
        {
            "input_ids": [source for source, _ in pairs],
            "labels": [target for _, target in pairs],
            "index": list(range(len(pairs))),
        }
    )
    assert batch["attention_mask"].shape == batch["input_ids"].shape
    assert {batch[name].dtype for name in batch} == {torch.int64}
    for row, (source, target) in enumerate(pairs):
        real = batch["attention_mask"][row].bool()
        assert batch["input_ids"][row][real].tolist() == source
        assert batch["input_ids"][row][~real].eq(0).all()
        labels = batch["labels"][row]
        assert labels[: len(target)].tolist() == target
        assert labels[len(target) :].eq(IGNORE_INDEX).all()
    assert batch["input_ids"].shape[1] == max(len(source) for source, _ in pairs)
    assert batch["labels"].shape[1] == max(len(target) for _, target in pairs)


def test_loaders_give_every_row_once(tmp_path):
    module = data_module(tmp_path)
    for loader, number in ((module.train_dataloader(), 50), (module.val_dataloader(), 5)):
        rows = torch.cat([batch["index"] for batch in loader])
        assert sorted(rows.tolist()) == list(range(number))


def test_limits_and_missing_splits(tmp_path):
    module = data_module(tmp_path, limit_train=7)
    assert len(module.split("train")) == 7 and len(module.split("validation")) == 5
    with pytest.raises(ValueError, match="no test split, only train, validation;"):
        module.test_dataloader()


def test_loading_leaves_the_global_random_state_alone(tmp_path):
    module = data_module(tmp_path)
    module.setup()
    before = torch.get_rng_state()
    list(module.train_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


class Recorder(pl.LightningModule):
    """Trains nothing; writes down which rows it was given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["index"].tolist())
        return self.weight * 0

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, steps, saved, ckpt=None):
    """The rows of every batch of a training that saves at each third step, by the hook `saved`."""
    model = Recorder()
    every = {"validation": {}, "step": {"every_n_train_steps": 1}}[saved]
    trainer = pl.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        val_check_interval=3, check_val_every_n_epoch=None,
        callbacks=[ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **every)],
    )  # fmt: skip
    trainer.fit(model, datamodule=data_module(folder), ckpt_path=ckpt)
    return model.seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("saved", ["validation", "step"])
@pytest.mark.parametrize("interrupted", [3, 9, 21])  # 7 batches an epoch
def test_a_resumed_training_gets_the_batches_it_would_have_got(tmp_path, interrupted, saved):
    whole = fit(tmp_path / "whole", 23, saved)
    first = fit(tmp_path / "parts", interrupted, saved)
    ckpt = tmp_path / "parts" / f"step={interrupted}.ckpt"
    assert first + fit(tmp_path / "parts", 23, saved, ckpt) == whole
