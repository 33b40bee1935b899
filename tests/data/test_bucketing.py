import json
import lzma
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dq_lightning.data.bucketing import BucketSampler
from dq_lightning.data.cmudict import CMUDict

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"

lengths = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 20)), min_size=1, max_size=200)
sizes = st.integers(1, 17)


def epoch_of(rows, batch_size, epoch, **settings):
    sampler = BucketSampler(rows, batch_size, seed=3, **settings)
    sampler.set_epoch(epoch)
    return list(sampler)


@given(lengths, sizes, st.integers(0, 5), st.integers(1, 4))
def test_every_row_comes_exactly_once_an_epoch(rows, batch_size, epoch, window):
    batches = epoch_of(rows, batch_size, epoch, window=window)
    assert sorted(chain(*batches)) == list(range(len(rows)))
    assert len(batches) == len(BucketSampler(rows, batch_size, seed=3))
    assert all(0 < len(batch) <= batch_size for batch in batches)


@given(lengths, sizes, st.integers(0, 5))
def test_the_order_is_a_pure_function_of_seed_and_epoch(rows, batch_size, epoch):
    used = BucketSampler(rows, batch_size, seed=3)
    list(used)  # what was drawn before does not matter
    used.set_epoch(epoch)
    assert list(used) == list(used) == epoch_of(rows, batch_size, epoch)


def test_epochs_and_seeds_differ():
    rows = [(i % 7, 1) for i in range(200)]
    assert epoch_of(rows, 8, 0) != epoch_of(rows, 8, 1)
    assert list(BucketSampler(rows, 8, seed=0)) != list(BucketSampler(rows, 8, seed=1))


@given(lengths, sizes, st.data())
def test_resuming_continues_the_epoch_and_then_starts_the_next_whole(rows, batch_size, data):
    full = epoch_of(rows, batch_size, 2)
    done = data.draw(st.integers(0, len(full)))
    sampler = BucketSampler(rows, batch_size, seed=3)
    sampler.set_epoch(2)
    sampler.first_batch = done
    assert list(sampler) == full[done:]
    sampler.set_epoch(3)
    assert list(sampler) == epoch_of(rows, batch_size, 3)


@given(lengths, sizes, st.integers(2, 4))
def test_processes_share_an_epoch_in_equal_parts(rows, batch_size, num_replicas):
    shares = [
        epoch_of(rows, batch_size, 1, rank=rank, num_replicas=num_replicas)
        for rank in range(num_replicas)
    ]
    assert len({len(share) for share in shares}) == 1
    batches = [tuple(batch) for share in shares for batch in share]
    if len(rows) >= batch_size * num_replicas:
        assert len(set(batches)) == len(batches)


@given(lengths, sizes, st.integers(2, 4))
def test_an_evaluation_has_every_row_in_one_share(rows, batch_size, num_replicas):
    shares = [
        list(BucketSampler(rows, batch_size, 3, rank=r, num_replicas=num_replicas, drop_rest=False))
        for r in range(num_replicas)
    ]
    alone = list(BucketSampler(rows, batch_size, 3, drop_rest=False))
    assert {tuple(batch) for share in shares for batch in share} == set(map(tuple, alone))
    assert len({len(share) for share in shares}) == 1  # sharded weights are gathered batch by batch
    assert sum(map(len, shares)) < len(alone) + num_replicas


@given(lengths, sizes, st.integers(2, 4))
def test_processes_do_what_one_accumulates(rows, batch_size, num_replicas):
    """Their k-th batches are the k-th accumulated step of one process."""
    shares = [
        epoch_of(rows, batch_size, 1, rank=rank, num_replicas=num_replicas)
        for rank in range(num_replicas)
    ]
    alone = epoch_of(rows, batch_size, 1, multiple_of=num_replicas)
    if len(alone) >= num_replicas:
        assert [batch for step in zip(*shares, strict=True) for batch in step] == alone


def padding(rows, batch_size):
    """The share of padded positions, source and target together, in one epoch."""
    batches = epoch_of(rows, batch_size, 0)
    padded = sum(len(b) * max(rows[i][side] for i in b) for b in batches for side in (0, 1))
    return 1 - sum(map(sum, rows)) / padded


def test_cmudict_is_padded_less_than_a_tenth():
    pytest.importorskip("cmudict")
    train = CMUDict().splits()["train"]
    rows = [
        (len(word) + 1, len(reference.split()) + 1)
        for word, references in zip(train["source"], train["references"], strict=True)
        for reference in references
    ]
    assert padding(rows, 128) < 0.10


@pytest.mark.parametrize("name", ["scitldr-a", "dialogsum"])
@pytest.mark.parametrize("batch_size", [8, 16, 32])
def test_real_documents_are_padded_less_than_a_tenth(name, batch_size):
    path = SHARED / name / "train.jsonl.xz"
    if not path.is_file():
        pytest.skip(f"{name} is not here")
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        read = [json.loads(line) for line in lines]
    # words x 1.3 stand in for byte-pair tokens; cut as the data YAML cuts
    rows = [
        tuple(
            min(int(len(row[side].split()) * 1.3) + 2, limit)
            for side, limit in (("document", 1024), ("summary", 128))
        )
        for row in read
    ]
    assert padding(rows, batch_size) < 0.10
