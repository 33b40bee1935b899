"""Every way a command can fail ends with one sentence, the right exit code and no traceback."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.errors import FULL_ERROR, HINT, OURS, nearest_keys, one_sentence_errors

CONFIG = {
    "train.yaml": """
defaults:
  - data: g2p
  - quant: dq
  - experiment: null
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
  - _self_
seed: 1
student: {layers: 6-3}
must: ???
kind: null
""",
    "quant/dq.yaml": "bits: 2-2-8\nweight: {bits: 2}",
    "quant/none.yaml": "bits: 32",
    "data/g2p.yaml": "train: x",
    "data/hub.yaml": "name: y",
    "data/jsonl.yaml": "train: z",
    "experiment/long.yaml": "# @package _global_\nseed: 2",
}


@dataclass(frozen=True)
class Outcome:
    code: int
    err: str

    @property
    def sentence(self) -> str:
        return self.err.removesuffix(f"\n{HINT}\n").splitlines()[-1]


def refuse(**kwargs: Any) -> None:
    raise ValueError("quant.weight.bits=3.5: write a whole number.")


def crash(**kwargs: Any) -> None:
    raise ZeroDivisionError("division by zero")


def task(cfg: Any) -> None:
    """Fails the way ``kind`` says."""
    if cfg.kind == "value":
        raise ValueError("quant.bits=2-2: write W-E-A,\n  such as 2-2-8.")
    if cfg.kind == "unexpected":
        with Artifact(HydraConfig.get().runtime.output_dir).running():
            raise ZeroDivisionError("division by zero")
    if cfg.kind == "missing":
        str(cfg.must)
    if cfg.kind == "file":
        Path("nowhere.jsonl").read_text()
    if cfg.kind == "interrupt":
        raise KeyboardInterrupt
    if cfg.kind == "lightning":
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)
    if cfg.kind == "exit":
        sys.exit(3)
    if cfg.kind in ("refuse", "crash"):
        hydra.utils.instantiate({"part": {"_target_": f"{__name__}.{cfg.kind}"}})


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    for name, text in CONFIG.items():
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "conf"


@pytest.fixture
def command(
    config_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    monkeypatch.delenv(FULL_ERROR, raising=False)
    monkeypatch.chdir(config_dir.parent)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        main = hydra.main(version_base="1.3", config_path=str(config_dir), config_name="train")
        code = 0
        try:
            with one_sentence_errors(config_dir, "train"):
                main(task)()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return Outcome(code, capsys.readouterr().err)

    return run


def test_a_good_command_says_nothing(command: Callable[..., Outcome]) -> None:
    assert command("quant.bits=8") == Outcome(0, "")
    assert FULL_ERROR not in os.environ
    assert OURS not in os.environ


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        (
            "quant.bitz=2",
            "There is no config key or group 'quant.bitz'. Did you mean quant.bits?",
        ),
        (
            "student.layer=3",
            "There is no config key or group 'student.layer'. Did you mean student.layers?",
        ),
        (
            "quant.weigth.bits=3",
            "There is no config key or group 'quant.weigth.bits'. Did you mean quant.weight.bits?",
        ),
        ("quent=dq", "There is no config key or group 'quent'. Did you mean quant?"),
        (
            "experimant=long",
            "There is no config key or group 'experimant'. Did you mean experiment?",
        ),
        (
            "~sead",
            "There is no config key or group 'sead'. Did you mean seed?",
        ),
        (
            "qqqqqq=1",
            "There is no config key or group 'qqqqqq'; --cfg job lists every key, "
            "and +qqqqqq=... adds a new one.",
        ),
        (
            "data=jsnl",
            "There is no data=jsnl; the options, nearest first: jsonl, g2p, hub.",
        ),
        ("kind=value", "quant.bits=2-2: write W-E-A, such as 2-2-8."),
        ("kind=refuse", "quant.weight.bits=3.5: write a whole number."),
        (
            "kind=crash",
            "ZeroDivisionError: division by zero (while building the config key part)",
        ),
        ("kind=missing", "The config key must has no value: give one with must=..."),
        ("kind=file", "No such file or directory: nowhere.jsonl"),
    ],
)
def test_one_sentence(command: Callable[..., Outcome], argument: str, sentence: str) -> None:
    outcome = command(argument)
    assert outcome.sentence == sentence
    assert outcome.code == 1
    assert outcome.err.endswith(f"{HINT}\n")
    assert "Traceback" not in outcome.err
    assert len(outcome.err.splitlines()) <= 3  # Hydra names the failed job's overrides first


@pytest.mark.parametrize("argument", ["quant.bits=[2", "quant.bits", "+seed=2", "seed.deep=1"])
def test_other_override_mistakes_are_one_line_too(
    command: Callable[..., Outcome], argument: str
) -> None:
    outcome = command(argument)
    assert outcome.code == 1
    assert len(outcome.err.splitlines()) == 2
    assert argument.strip("+").split(".")[0].split("=")[0] in outcome.sentence


def test_an_unexpected_error_names_its_type_and_its_folder(
    command: Callable[..., Outcome],
) -> None:
    outcome = command("kind=unexpected", "hydra.run.dir=here")
    assert outcome.sentence.startswith("ZeroDivisionError: division by zero (traceback in ")
    assert outcome.sentence.endswith("here/status.json)")


@pytest.mark.parametrize(
    ("kind", "code", "err"),
    [("interrupt", 130, "interrupted\n"), ("lightning", 130, "interrupted\n"), ("exit", 3, "")],
)
def test_exits(command: Callable[..., Outcome], kind: str, code: int, err: str) -> None:
    assert command(f"kind={kind}") == Outcome(code, err)


def test_a_failed_job_of_a_sweep_is_one_sentence(command: Callable[..., Outcome]) -> None:
    outcome = command("-m", "kind=null,value", "hydra.sweep.dir=sweep")
    assert outcome.code == 1
    assert outcome.sentence == "quant.bits=2-2: write W-E-A, such as 2-2-8."
    assert "Traceback" not in outcome.err


def test_a_misspelt_key_of_a_sweep(command: Callable[..., Outcome]) -> None:
    outcome = command("-m", "quant.bitz=2,4", "seed=1,2", "hydra.sweep.dir=sweep")
    assert outcome.code == 1
    assert outcome.sentence.endswith("Did you mean quant.bits?")


def test_suggestions_follow_the_chosen_groups(command: Callable[..., Outcome]) -> None:
    outcome = command("data=hub", "data.nmae=3")
    assert outcome.sentence.endswith("Did you mean data.name?")


def test_the_user_may_have_the_traceback(
    command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FULL_ERROR, "1")
    with pytest.raises(ValueError, match="such as 2-2-8"):
        command("kind=value")


def test_child_processes_know_whose_setting_it_is(
    command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FULL_ERROR, "1")
    monkeypatch.setenv(OURS, "1")
    assert command("kind=value").code == 1
    assert os.environ[FULL_ERROR] == os.environ[OURS] == "1"


def test_nearest_keys_by_the_last_part(config_dir: Path) -> None:
    assert nearest_keys("bits", config_dir, "train") == ["quant.bits", "quant.weight.bits"]


def test_a_config_tree_that_does_not_compose_costs_only_its_keys(config_dir: Path) -> None:
    (config_dir / "train.yaml").write_text("defaults: [nowhere]")
    assert nearest_keys("quent", config_dir, "train") == ["quant"]
