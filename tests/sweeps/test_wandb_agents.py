"""A grid for W&B's agents: `wandb sweep` takes what is printed, and its command composes."""

from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from dq_lightning.sweeps.wandb_agents import agents_sweep, main

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
GRID = ["quant.bits=2,4-4-8,8", "student.layers=range(1,4)", "debug=fast", "seed=3"]


@pytest.fixture
def printed(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    main(GRID)
    return capsys.readouterr().out


def test_the_printed_sweep_reads_back(printed):
    sweep = yaml.safe_load(printed)
    assert sweep == agents_sweep(GRID, CONF)
    assert (sweep["program"], sweep["method"]) == ("train.py", "grid")
    assert sweep["project"] == "dq_lightning"
    assert sweep["metric"] == {"name": "student/wer", "goal": "minimize"}
    assert sweep["parameters"] == {
        "quant.bits": {"values": [2, "4-4-8", 8]},
        "student.layers": {"values": [1, 2, 3]},
    }


def test_an_agents_command_is_one_of_the_grids_runs(printed):
    """The words are put together by W&B's own agent code."""
    sweep = yaml.safe_load(printed)
    chosen = {key: {"value": node["values"][1]} for key, node in sweep["parameters"].items()}
    macros = create_sweep_command_args({"args": chosen})
    words = []
    for word in create_sweep_command(sweep["command"]):
        words += macros.get(word.strip("${}"), [word])
    overrides = words[words.index("${program}") + 1 :]
    assert overrides == ["quant.bits=4-4-8", "student.layers=2", "debug=fast", "seed=3"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides)
    assert (cfg.quant.bits, cfg.student.layers, cfg.seed, cfg.steps) == ("4-4-8", 2, 3, 4)


def test_a_metric_that_shall_rise():
    sweep = agents_sweep(["quant.bits=choice(2,8)", "data=xsum", "logger=csv"], CONF)
    assert sweep["metric"] == {"name": "student/rougeLsum", "goal": "maximize"}
    assert sweep["command"][-2:] == ["data=xsum", "logger=csv"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["debug=fast"], "quant.bits=2,4,8"),
        (["qant.bits=2,4"], "Did you mean quant.bits"),
        (["optimizer.lr=interval(1e-4,1e-2)"], "lists no values, which a grid needs; write them"),
        (["data=glob(*)"], "data=glob(*) lists no values"),
    ],
)
def test_mistakes_are_one_sentence(monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert leaving.value.code == 1
    assert sentence in capsys.readouterr().err
