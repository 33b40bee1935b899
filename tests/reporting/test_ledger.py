"""The ledger: published rows stay what they are, measured ones come from records alone."""

import copy
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console

from dq_lightning.reporting.__main__ import main
from dq_lightning.reporting.ledger import Measured, cell, is_row, score_entries, unmatched
from dq_lightning.reporting.ledger_tables import ledger, print_tables

ROOT = Path(__file__).parents[2]
CONF, STUDY = ROOT / "conf", ROOT / "experiments" / "dq_bart"
PUBLISHED = json.loads((STUDY / "published.json").read_text(encoding="utf-8"))
EXPERIMENTS = sorted(file.stem for file in (CONF / "experiment/dq_bart").glob("*_*.yaml"))
SCORES = {"rouge1": 40.16, "rouge2": 17.04, "rougeL": 30.0, "rougeLsum": 32.46}
TEACHER = {"rouge1": 43.94, "rouge2": 20.79, "rougeL": 33.0, "rougeLsum": 35.61}


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", ["paths.output_dir=here", *overrides])


def record(*overrides, bits=(2, 2, 8), layers=(6, 6)):
    """A record of this config with made-up scores."""
    sites = dict(zip(("weight_bits", "embedding_bits", "activation_bits"), bits, strict=True))
    stacks = dict(zip(("encoder_layers", "decoder_layers"), layers, strict=True))
    name = f"{'-'.join(map(str, bits))} {'-'.join(map(str, layers))}"
    return {
        "metrics": {
            "cell": {"name": name, **sites, **stacks}, "teacher": TEACHER, "student": SCORES,
            "metric_recipe": "rouge_score 0.1.2",
            "run": {"steps": 24_000, "seed": 28, "device": "cuda", "train_rows": 204_045,
                    "test_rows": 11_334},
        },
        "environment": {"git_sha": "0123456789abcdef", "git_dirty": False},
        "config": OmegaConf.to_container(composed(*overrides)),
    }  # fmt: skip


XSUM = record("experiment=dq_bart/xsum_2-2-8_6-6")


def row(method, data, bits, layers):
    return next(r for r in PUBLISHED["scores"] if (r["method"], r["data"]) == (method, data)
                and cell(r) == {"bits": bits, "layers": layers})  # fmt: skip


def test_published_rows_are_whole():
    rows = PUBLISHED["scores"]
    keys = [(r["method"], r["data"], r["bits"], r["layers"]) for r in rows]
    assert len(set(keys)) == len(rows)
    for r in rows:
        assert tuple(r["scores"]) == tuple(PUBLISHED["data"][r["data"]]["metrics"])
        assert r["method"] in PUBLISHED["methods"] and r["grade"] in PUBLISHED["grades"]
        known = any(v is not None for v in r["scores"].values())
        assert (r["status"] == "published") == known
        assert not known or r["source"]
    assert row("DQ-BART", "xsum", "2-2-8", "6-6")["scores"]["rougeLsum"] == 32.46
    assert row("TBT", "wmt16_en_ro", "1-1-1", "12-12")["scores"] == {"bleu": 17.59}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_a_published_row_and_nothing_else(name):
    data, bits, layers = re.fullmatch(r"(.+)_([\d-]+)_([\d-]+)", name).groups()
    cfg = composed(f"experiment=dq_bart/{name}")
    published = row("DQ-BART", data, bits, layers)
    assert published["teacher"] == cfg.teacher.path
    run = Measured("here", record(f"experiment=dq_bart/{name}", bits=tuple(bits.split("-")),
                                  layers=tuple(layers.split("-"))))  # fmt: skip
    assert [r for r in PUBLISHED["scores"] if is_row(r, run, PUBLISHED)] == [published]
    assert cfg.optimizer.lr == 3e-5 and cfg.epochs == 20 and cfg.student.dropout is None


def test_every_known_dq_bart_row_has_its_experiment():
    known = {f"{r['data']}_{r['bits']}_{r['layers']}" for r in PUBLISHED["scores"]
             if r["method"] == "DQ-BART" and r["status"] == "published"}  # fmt: skip
    assert set(EXPERIMENTS) == known


@pytest.mark.parametrize(
    ("overrides", "method"),
    [
        (["quant=default", "distill=default"], None),
        (["quant=default", "distill=tbt", "quantizer@quant.weight.quantizer=tbt"], "TBT"),
        (["quant.head=tied"], None),
        (["distill=quantbart", "quantizer@quant.weight.quantizer=dynamic_scaling"], "QuantBART"),
    ],
)
def test_the_config_says_the_method(overrides, method):
    run = Measured("here", record("experiment=dq_bart/xsum_2-2-8_6-6", *overrides))
    found = {r["method"] for r in PUBLISHED["scores"] if is_row(r, run, PUBLISHED)}
    assert found == ({method} if method else set())
    assert (unmatched(PUBLISHED, [run]) == []) == bool(method)


def test_other_data_bits_and_layers_are_other_rows():
    for key, value in (("weight_bits", 8), ("decoder_layers", 5)):
        other = copy.deepcopy(XSUM)
        other["metrics"]["cell"][key] = value
        assert unmatched(PUBLISHED, [Measured("here", other)])
    other = copy.deepcopy(XSUM)
    other["config"]["data"]["name"] = "someone/xsum"
    assert all(e.measured is None for e in score_entries(PUBLISHED, [Measured("here", other)]))


def test_bits_are_compared_in_one_order():
    assert cell({"bits": "1-2-8", "bits_order": "E-W-A", "layers": "6-6"})["bits"] == "2-1-8"


def test_measured_stands_beside_published_with_the_difference_and_the_recipe():
    sections, notes = ledger(PUBLISHED, [Measured("results/x.json", XSUM)], [])
    lines = [" ".join(line) for section in sections for line in section.table("/")]
    assert ("DQ-BART 2-2-8 6-6 40.06/17.34/32.46 B 40.16/17.04/32.46 +0.10/-0.30/+0.00 1") in lines
    assert (
        "full precision 32-32-32 6-6 43.84/20.79/35.71 B 43.94/20.79/35.61 +0.10/+0.00/-0.10 1"
    ) in lines
    assert "QuantBART 8-8-8 6-6 not published B not run - " in lines
    assert "DQ-BART 2-2-8 6-3 not found ? not run - " in lines
    for part in ("[1] 2-2-8 6-6", "24,000 steps", "seed 28", "cuda", "204,045 training",
                 "commit 0123456789", "rouge_score 0.1.2", "results/x.json"):  # fmt: skip
        assert part in notes[0]


def test_the_committed_sizes_are_the_published_ones(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["ledger", "--markdown"]) == 0
    text = re.sub(" +", " ", capsys.readouterr().out)
    for line in ("2-2-8 6-6 | 13.6 | A | 13.62 | +0.02", "2-2-8 6-3 | 16.5 | A | 16.50 | +0.00",
                 "2-2-8 1-1 | 27.7 | A | 27.70 | +0.00", "2-2-8 6-6 | 39.6 | A | 39.61",
                 "1-1-8 6-6 | 23.2 | A | 23.19", "8-8-8 6-6 | 138.1 | A | 138.09"):  # fmt: skip
        assert line in text
    assert "nan" not in text.lower() and "-0.00" not in text
    for file in (STUDY / "sizes").glob("*.json"):
        assert json.loads(file.read_text())["environment"]["git_dirty"] is False


def test_records_and_run_directories_are_read_and_broken_files_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "x.json").write_text(json.dumps(XSUM))
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "other.json").write_text("[]")
    run = tmp_path / "sweep" / "0"
    run.mkdir(parents=True)
    for name in ("metrics", "environment"):
        content = XSUM[name] | ({"command": "python train.py"} if name == "environment" else {})
        (run / f"{name}.json").write_text(json.dumps(content))
    (run / "config.yaml").write_text(json.dumps(XSUM["config"]))
    (run / "status.json").write_text('{"status": "finished", "seconds": 1}')
    (tmp_path / "sweep" / "1").mkdir()
    (tmp_path / "sweep" / "1" / "status.json").write_text('{"status": "failed"}')
    assert main(["ledger", "--markdown", "--records", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.count("40.16/17.04/32.46") == 2
    assert "bad.json is left out" in text and "other.json" not in text
    assert "sweep/0" in text and "sweep/1" not in text


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_cuts_no_number(width):
    sections, notes = ledger(PUBLISHED, [Measured("x.json", XSUM)], [])
    console = Console(width=width, force_terminal=True, record=True, color_system=None)
    with console.capture() as captured:
        print_tables(sections, notes, console)
    text = captured.get()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text and "32.46" in text
    assert ("40.16/17.04/32.46" in text) == (width == 120)


def test_it_is_a_subcommand_without_torch():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['hydra'] = None\n"
        "from dq_lightning.reporting.__main__ import main\n"
        "sys.exit(main(['ledger']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, check=True)  # fmt: skip
    assert "\x1b" not in done.stdout and "not run" in done.stdout
    assert "…" not in done.stdout


def test_a_missing_folder_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["ledger"]) == 2
    assert "run this in the repository's root" in capsys.readouterr().err
    assert main(["./ledger"]) == 2  # a sweep's folder of that name
    assert "No such sweep folder" in capsys.readouterr().err


@pytest.mark.parametrize("study", ["dq_bart", "dialogsum"])
def test_the_commands_of_a_study_compose(study):
    text = (ROOT / "experiments" / study / "README.md").read_text(encoding="utf-8")
    commands = [line for line in text.splitlines() if line.startswith("python train.py")]
    assert commands
    for command in commands:
        words = [w for w in shlex.split(command)[2:] if w != "-m" and not w.startswith("hydra.")]
        words = [w.partition("=")[0] + "=" + w.partition("=")[2].split(",")[0] for w in words]
        composed(*words)
