"""Batches of rows of like length, in an order that is a pure function of seed and epoch."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

Lengths = Sequence[tuple[int, int]]
GROUP = 3  # batches re-sorted together; 2 and 4 pad a little more on scitldr-a and dialogsum


class BucketSampler(Sampler[list[int]]):
    """Yields the row numbers of one batch at a time.

    Each epoch the rows are shuffled, cut into windows of `window` batches, each window is cut into
    batches of like length (`batches_of_like_length`), and the batches are shuffled: little is
    padded, while every epoch groups the rows anew.

    lengths: (source length, target length) of each row.
    rank, num_replicas: every `num_replicas`-th batch goes to this process. All get equally many, so
        of an epoch up to num_replicas - 1 batches are left over, others in each epoch.
    drop_rest: False gives those out too, for evaluation, and the first ones again to fill up.
    multiple_of: an epoch has such a number of batches, so that every accumulated step is whole; the
        few left over differ from epoch to epoch.
    first_batch: batches of the next epoch to leave out, for resuming in the middle of one.
    """

    def __init__(
        self,
        lengths: Lengths,
        batch_size: int,
        seed: int,
        *,
        window: int = 64,
        rank: int = 0,
        num_replicas: int = 1,
        multiple_of: int = 1,
        drop_rest: bool = True,
    ) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.window = window
        self.rank = rank
        self.num_replicas = num_replicas
        self.multiple_of = multiple_of
        self.drop_rest = drop_rest
        self.epoch = 0
        self.first_batch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        batches = -(-len(self.lengths) // self.batch_size)
        if not self.drop_rest:
            return (batches + self.num_replicas - 1) // self.num_replicas
        own = batches // self.num_replicas
        return max(own - own % self.multiple_of, min(own, self.multiple_of), 1)

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches()
        own = [
            batches[(self.rank + i * self.num_replicas) % len(batches)] for i in range(len(self))
        ]
        first, self.first_batch = self.first_batch, 0
        return iter(own[first:])

    def _batches(self) -> list[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order: list[int] = torch.randperm(len(self.lengths), generator=generator).tolist()
        size = self.batch_size * self.window
        windows = (order[start : start + size] for start in range(0, len(order), size))
        batches = [
            batch
            for window in windows
            for batch in batches_of_like_length(window, self.lengths, self.batch_size)
        ]
        shuffle = torch.randperm(len(batches), generator=generator).tolist()
        return [batches[i] for i in shuffle]


def batches_of_like_length(rows: list[int], lengths: Lengths, batch_size: int) -> list[list[int]]:
    """Cut `rows` into batches (the last may be smaller) that pad few source and target positions.

    Sorted by source length alone, a batch still mixes short and long targets. So each group of
    neighbouring batches, whose sources are about as long, is sorted by target length instead where
    that pads less; among the longest sources, which differ most, it rarely does.
    """
    ordered = sorted(rows, key=lengths.__getitem__)
    batches: list[list[int]] = []
    for group in _cut(ordered, GROUP * batch_size):
        by_source = _cut(group, batch_size)
        by_target = _cut(sorted(group, key=lambda row: lengths[row][1]), batch_size)
        batches += min(by_source, by_target, key=lambda cut: _num_positions(cut, lengths))
    return batches


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _num_positions(batches: list[list[int]], lengths: Lengths) -> int:
    """Source and target positions of the padded batches."""
    return sum(len(b) * max(lengths[row][side] for row in b) for b in batches for side in (0, 1))
