"""Learning-rate schedules over a known number of optimizer steps."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler


def warmup_schedule(
    optimizer: Optimizer, num_training_steps: int, name: str, warmup_fraction: float
) -> LambdaLR:
    """Linear warm-up over a fraction of all steps, then `name`: linear, cosine or constant.

    Any other name of transformers' `get_scheduler` that needs no further arguments works too.
    """
    warmup = round(warmup_fraction * num_training_steps)
    name = "constant_with_warmup" if name == "constant" else name
    return get_scheduler(name, optimizer, warmup, num_training_steps)  # pyright: ignore


def validation_interval(steps: int, validations: int) -> int:
    """Steps between `validations` evenly spaced validations, the last at or just after the end.

    >>> validation_interval(1200, 4), validation_interval(1201, 4)
    (300, 301)
    """
    return -(-steps // validations)
