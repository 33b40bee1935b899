"""`teacher=` takes a name of conf/teacher, a folder, or a hub repository."""

import pytest

from dq_lightning.sweeps.overrides import teacher_shorthand


@pytest.fixture
def spell(tmp_path, monkeypatch):
    config = tmp_path / "conf"
    (config / "teacher").mkdir(parents=True)
    for name in ("g2p", "hub", "none"):
        (config / "teacher" / f"{name}.yaml").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "none").mkdir()  # a folder named as an option: the option wins
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: teacher_shorthand(arguments, config)


@pytest.mark.parametrize(
    "path", ["facebook/bart-base", "./mine", "mine", "/somewhere/else", "~/models/bart"]
)
def test_a_path_is_spelled_out(spell, path):
    assert spell(f"teacher={path}") == ["teacher=hub", f"teacher.path={path}"]


def test_several_paths_are_a_sweep(spell):
    assert spell("-m", "teacher=mine,a/b") == ["-m", "teacher=hub", "teacher.path=mine,a/b"]


@pytest.mark.parametrize(
    "argument",
    [
        "teacher=g2p",
        "teacher=none",
        "teacher=g2p,none",
        "teacher=g2p,mine",  # neither all options nor all paths: Hydra names the wrong one
        "teacher=gtp",  # misspelt: Hydra lists the options
        "teacher=",
        "teacher",
        "teacher.path=a/b",
        "+teacher=a/b",
        "~teacher",
        "data.train=a/b",
        "-m",
        "--cfg=job",
    ],
)
def test_all_else_stays_as_it_is(spell, argument):
    assert spell("seed=1", argument, "steps=2") == ["seed=1", argument, "steps=2"]


def test_order_is_kept(spell):
    spelled = spell("seed=1", "teacher=a/b", "steps=2")
    assert spelled == ["seed=1", "teacher=hub", "teacher.path=a/b", "steps=2"]
