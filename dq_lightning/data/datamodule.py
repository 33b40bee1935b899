"""The DataModule: a source and a tokenizer become padded, bucketed batches."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from dq_lightning.data.bucketing import BucketSampler
from dq_lightning.data.source import DataSource
from dq_lightning.data.tokenization import TokenizationConfig, subset, tokenized_splits

IGNORE_INDEX = -100
Batch = dict[str, torch.Tensor]


class Seq2SeqDataModule(pl.LightningDataModule):
    """Batches of {input_ids, attention_mask, labels, index}; labels are -100 where padded.

    limit_train, limit_validation, limit_test: use only so many rows of a split, drawn once
    and for all (None: all of them).
    """

    def __init__(
        self,
        source: DataSource,
        tokenizer: PreTrainedTokenizerBase,
        tokenization: TokenizationConfig,
        *,
        cache_dir: str | Path,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        num_workers: int = 0,
        accumulate_grad_batches: int = 1,
        limit_train: int | None = None,
        limit_validation: int | None = None,
        limit_test: int | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.tokenizer = tokenizer
        self.tokenization = tokenization
        self.cache_dir = Path(cache_dir)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.accumulate_grad_batches = accumulate_grad_batches
        self.limits = {"train": limit_train, "validation": limit_validation, "test": limit_test}
        self.splits: dict[str, Dataset] = {}
        self.key = ""

    def setup(self, stage: str | None = None) -> None:
        if not self.splits:
            splits, self.key = tokenized_splits(
                self.source,
                self.tokenizer,
                self.tokenization,
                self.cache_dir,
                self.limits["train"],
            )
            self.splits = {
                str(name): subset(rows, self.limits[str(name)]) for name, rows in splits.items()
            }

    def split(self, name: str) -> Dataset:
        """The tokenized split, or a ValueError that lists those there are."""
        self.setup()
        if name not in self.splits:
            raise ValueError(
                f"the data set has no {name} split, only {', '.join(sorted(self.splits))}; a run "
                f"needs train, validation and test, so write data.{name}=<file or split>."
            )
        return self.splits[name]

    def train_on(self, source: DataSource) -> None:
        """Replace the training rows by all those of `source`; `key` stays that of the others."""
        self.setup()
        splits, _ = tokenized_splits(source, self.tokenizer, self.tokenization, self.cache_dir)
        self.splits["train"] = splits["train"]

    def references(self, name: str) -> dict[int, list[str]]:
        """Row index -> references of the split, as the batches' `index` names rows."""
        rows = self.split(name)
        return dict(zip(rows["index"], rows["references"], strict=True))

    def train_dataloader(self) -> DataLoader[Any]:
        rows = self.split("train")
        rank, num_replicas = self._share()
        sampler = BucketSampler(
            _lengths(rows),
            self.batch_size,
            self.seed,
            rank=rank,
            num_replicas=num_replicas,
            multiple_of=self.accumulate_grad_batches,
        )
        if self.trainer is not None:
            # Restored from the checkpoint before the loaders are made: on resuming in the middle of
            # an epoch, its batches that were already trained on are left out.
            total = self.trainer.fit_loop.epoch_loop.batch_progress.total
            done = total.processed  # pyright: ignore[reportAttributeAccessIssue]
            epoch, sampler.first_batch = divmod(done, len(sampler))
            sampler.set_epoch(epoch)
        return self._loader(rows, sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        """Within a trainer of several processes: this one's share."""
        return self._every_row(self.split("validation"), self.eval_batch_size, *self._share())

    def test_dataloader(self) -> DataLoader[Any]:
        return self.batches(self.split("test"), self.eval_batch_size)

    def batches(self, rows: Dataset, batch_size: int) -> DataLoader[Any]:
        """Batches of tokenized rows for this process alone, each row once."""
        return self._every_row(rows, batch_size, rank=0, num_replicas=1)

    def _share(self) -> tuple[int, int]:
        """(rank, number) of the processes that share the batches: outside a trainer, of one."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _every_row(
        self, rows: Dataset, batch_size: int, rank: int, num_replicas: int
    ) -> DataLoader[Any]:
        lengths = _lengths(rows)
        sampler = BucketSampler(
            lengths, batch_size, self.seed, rank=rank, num_replicas=num_replicas, drop_rest=False
        )
        return self._loader(rows, sampler)

    def _loader(self, rows: Dataset, sampler: BucketSampler) -> DataLoader[Any]:
        columns = rows.with_format("numpy", columns=["input_ids", "labels", "index"])
        return DataLoader(
            columns,  # pyright: ignore[reportArgumentType]
            batch_size=None,  # the sampler already yields whole batches
            sampler=sampler,
            collate_fn=self.collate,  # pyright: ignore[reportArgumentType]
            num_workers=self.num_workers,
            # its own generator: drawing worker seeds must not advance the global random state
            generator=torch.Generator().manual_seed(self.seed),
        )

    def collate(self, rows: dict[str, Any]) -> Batch:
        """Columns of ragged ids as padded tensors: (batch, longest source / target)."""
        inputs = [torch.tensor(ids) for ids in rows["input_ids"]]
        labels = [torch.tensor(ids) for ids in rows["labels"]]
        pad = self.tokenizer.pad_token_id
        assert isinstance(pad, int), "check_tokenizer lets no other tokenizer through"
        lengths = torch.tensor([len(ids) for ids in inputs])
        input_ids = pad_sequence(inputs, batch_first=True, padding_value=float(pad))
        return {
            "input_ids": input_ids,
            "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX),
            "index": torch.as_tensor(rows["index"]),
        }


def _lengths(rows: Dataset) -> list[tuple[int, int]]:
    import pyarrow.compute as pc

    table = rows.with_format("arrow")[:]
    sides = [pc.list_value_length(table[name]).to_pylist() for name in ("input_ids", "labels")]  # pyright: ignore
    return list(zip(*sides, strict=True))
