"""Batches of rows of like length, in an order that is a pure function of seed and epoch."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class BucketSampler(Sampler[list[int]]):
    """Yields the row numbers of one batch at a time.

    Each epoch the rows are shuffled, cut into windows of `window` batches, sorted by length inside
    each window, cut into batches, and the batches are shuffled: rows of like length share a batch,
    so little is padded, while every epoch groups them anew.

    lengths: sort key of each row, e.g. (source length, target length).
    rank, num_replicas: every `num_replicas`-th batch goes to this process; all get equally many.
    first_batch: batches of the next epoch to leave out, for resuming in the middle of one.
    """

    def __init__(
        self,
        lengths: Sequence[tuple[int, int]],
        batch_size: int,
        seed: int,
        *,
        window: int = 64,
        rank: int = 0,
        num_replicas: int = 1,
    ) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.window = window
        self.rank = rank
        self.num_replicas = num_replicas
        self.epoch = 0
        self.first_batch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        batches = -(-len(self.lengths) // self.batch_size)
        return max(1, batches // self.num_replicas)

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches()
        own = [
            batches[i % len(batches)]
            for i in range(self.rank, len(self) * self.num_replicas, self.num_replicas)
        ]
        first, self.first_batch = self.first_batch, 0
        return iter(own[first:])

    def _batches(self) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order: list[int] = torch.randperm(len(self.lengths), generator=generator).tolist()
        size = self.batch_size * self.window
        windows = (order[start : start + size] for start in range(0, len(order), size))
        batches = [
            rows[start : start + self.batch_size]
            for rows in (sorted(w, key=self.lengths.__getitem__) for w in windows)
            for start in range(0, len(rows), self.batch_size)
        ]
        shuffle = torch.randperm(len(batches), generator=generator).tolist()
        return [batches[i] for i in shuffle]
