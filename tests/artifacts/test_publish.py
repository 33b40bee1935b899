"""Publishing keeps the figures and leaves out every path of the machine."""

import json

import pytest

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.artifacts.publish import main, record


@pytest.fixture
def run_dir(tmp_path):
    artifact = Artifact(tmp_path / "run")
    with artifact.running():
        paths = f"paths:\n  output_dir: {tmp_path}\n"
        local = f"data:\n  files: [{tmp_path}/words.dict, there/rest.dict, ~/more.dict]\n"
        config = f"seed: 28\nckpt: null\nlogger: {{}}\n{paths}{local}"
        artifact.write_text("config.yaml", config)
        command = f"python train.py seed=28 'data.path={tmp_path}/words.dict' hydra.run.dir=x"
        artifact.write_json("environment.json", {"command": command})
        artifact.write_json("metrics.json", {"student": {"wer": 12.5}})
        with artifact.directory("student") as folder:
            (folder / "model.safetensors").write_bytes(b"weights")
    return artifact.run_dir


def test_a_record_holds_the_figures_and_no_path(run_dir, tmp_path):
    assert main([str(run_dir), "--record", str(tmp_path / "out" / "default.json")]) == 0
    text = (tmp_path / "out" / "default.json").read_text()
    content = json.loads(text)
    assert content["metrics"]["student"]["wer"] == 12.5
    files = ["words.dict", "there/rest.dict", "more.dict"]
    assert content["config"] == {"seed": 28, "data": {"files": files}}
    assert content["environment"]["command"] == "python train.py seed=28 data.path=words.dict"
    assert str(tmp_path) not in text


def test_a_published_student_has_its_record_beside_it(run_dir, tmp_path):
    assert main([str(run_dir), "--student", str(tmp_path / "g2p")]) == 0
    assert (tmp_path / "g2p" / "model.safetensors").read_bytes() == b"weights"
    training = json.loads((tmp_path / "g2p" / "training.json").read_text())
    assert training == json.loads(json.dumps(record(run_dir)))


def test_a_student_replaces_a_published_one_and_nothing_else(run_dir, tmp_path, capsys):
    folder = tmp_path / "g2p"
    folder.mkdir()
    (folder / "thesis.txt").write_text("precious")
    assert main([str(run_dir), "--student", str(folder)]) == 2
    assert "other files than a published student" in capsys.readouterr().err
    assert (folder / "thesis.txt").read_text() == "precious"
    (folder / "training.json").write_text("{}")
    assert main([str(run_dir), "--student", str(folder)]) == 0
    assert not (folder / "thesis.txt").exists()


def test_nothing_to_publish_is_said(run_dir, capsys):
    with pytest.raises(SystemExit):
        main([str(run_dir)])
    assert "nothing to write: give --record" in capsys.readouterr().err


@pytest.mark.parametrize("status", ["failed", "running"])
def test_only_finished_runs_are_published(run_dir, tmp_path, capsys, status):
    Artifact(run_dir).write_json("status.json", {"status": status})
    assert main([str(run_dir), "--student", str(tmp_path / "g2p")]) == 2
    assert status in capsys.readouterr().err
    assert not (tmp_path / "g2p").exists()


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path), "--record", str(tmp_path / "x.json")]) == 2
    assert "no whole run directory" in capsys.readouterr().err
