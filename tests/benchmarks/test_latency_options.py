"""The options of the latency benchmark: what fits a shape, what belongs to what, what is wrong."""

import json
from pathlib import Path

import pytest

from dq_lightning.benchmarks.latency_command import main

ROOT = Path(__file__).parents[2]


def test_lengths_fit_a_shape(tmp_path, monkeypatch):
    """conf/teacher/g2p.yaml has 64 positions as well."""
    monkeypatch.chdir(ROOT)
    file, rest = tmp_path / "out.json", ["--threads", "1", "--repeats", "1", "--beams", "1"]
    rest += ["--batch", "1", "--engine", "torch", "--layers", "1-1", "--against", "hf"]
    main(["--shape", "g2p", *rest, "--json", str(file)])
    record = json.loads(file.read_text())
    assert [cell["tokens"] for cell in record["cells"]] == [60, 64]
    assert record["settings"]["source_length"] == 64
    assert {"bits": "2-2-8", "layers": "1-1"}.items() <= record["settings"].items()


@pytest.mark.parametrize("file", sorted((ROOT / "experiments/packed/latency").glob("*.json")))
def test_committed_records_go_on_with_their_own_commands(file, monkeypatch):
    """Their settings are still what their commands give; only the commit and machine differ."""
    monkeypatch.chdir(ROOT)
    found = json.loads(file.read_text())
    words = found["environment"]["command"].split()[3:]

    class Found(Exception):
        pass

    def stop(_, settings):
        assert json.loads(json.dumps(settings)) == found["settings"]
        raise Found

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr("dq_lightning.benchmarks.latency_command.LatencyRecord", stop)
    with pytest.raises(Found):
        main(words)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "g2p", "--teacher", "x"], "--shape takes no --teacher; leave that out"),
        (["--shape", "g2p", "--sources", "x"], "--shape takes no --sources; leave that out"),
        (
            ["m.dq", "--bits", "2", "--layers", "1"],
            "a packed file takes no --bits and no --layers;",
        ),
        (["m.dq", "--source-length", "abc"], "--source-length: 'abc' is no whole number from 1;"),
        (["m.dq", "--batch", "1,x"], "--batch: 'x' is no whole number from 1; write one: 60"),
        (["m.dq", "--repeats", "0"], "--repeats: '0' is no whole number from 1; write one: 60"),
    ],
)
def test_wrong_options_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert message in capsys.readouterr().err
