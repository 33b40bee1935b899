"""A sweep's folder is named after its command."""

import re

import pytest

from dq_lightning.sweeps.resolvers import sweep_name

GRID = ["-m", "quant.bits=2,4,8", "student.layers=1,3,6"]


def test_a_command_is_readable_in_its_folder() -> None:
    assert re.fullmatch(r"quant\.bits-2-4-8_student\.layers-1-3-6-[0-9a-f]{6}", sweep_name(GRID))


@pytest.mark.parametrize(
    "more", ["jobs=2", "sweep.on_error=stop", "hydra/launcher=basic", "paths.cache=x", "logger=csv"]
)
def test_how_a_sweep_runs_does_not_name_it(more: str) -> None:
    assert sweep_name([*GRID, more]) == sweep_name(GRID)


@pytest.mark.parametrize("more", ["seed=1", "+loss@distill.losses.extra=logits_mse", "~callbacks"])
def test_what_it_runs_does(more: str) -> None:
    assert sweep_name([*GRID, more]) != sweep_name(GRID)


def test_the_order_of_a_command_changes_no_digit() -> None:
    assert sweep_name(GRID)[-6:] == sweep_name(GRID[::-1])[-6:]


def test_a_name_is_always_a_short_folder() -> None:
    for arguments in ([], ["-m"], ["a=" + "/x" * 300], ["teacher.path=../../etc"]):
        name = sweep_name(["-m", *arguments])
        assert re.fullmatch(r"[\w.-]{1,70}", name)
        assert not name.startswith(".")
