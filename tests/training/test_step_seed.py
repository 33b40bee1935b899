"""Dropout depends on seed and step, not on what ran before."""

from types import SimpleNamespace

import torch

from dq_lightning.training.step_seed import StepSeed


def draw(seed=28, step=0, batch_idx=0, rank=0, before=0):
    torch.rand(before)  # validation, loading, ...
    trainer = SimpleNamespace(global_step=step, global_rank=rank)
    StepSeed(seed).on_train_batch_start(trainer, None, None, batch_idx)
    return torch.nn.functional.dropout(torch.ones(64), 0.5).tolist()


def test_the_same_whatever_ran_before():
    assert draw(step=5, batch_idx=2) == draw(step=5, batch_idx=2, before=1000)


def test_seed_step_batch_and_rank_all_count():
    positions = [
        draw(),
        draw(seed=29),
        draw(step=1),
        draw(batch_idx=1),
        draw(rank=1),
        draw(step=1, rank=1),
        draw(seed=-1, step=10**7, batch_idx=8190),
    ]
    assert len({tuple(p) for p in positions}) == len(positions)
