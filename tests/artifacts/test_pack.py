"""The command that packs a finished run: the run's very student, and one sentence for mistakes."""

import json
import os
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from dq_lightning.artifacts.artifact import Artifact
from dq_lightning.artifacts.pack import main
from dq_lightning.artifacts.packed_file import read_packed
from dq_lightning.artifacts.packed_run import pack_run_student
from dq_lightning.artifacts.student_folder import save_student
from dq_lightning.choices import build_recipe, plain
from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.models.bart import FAMILY
from dq_lightning.models.student import student_from_scratch
from dq_lightning.quantization.prepare import prepare

CONF = Path(__file__).parents[2] / "conf"
SIZES = {
    "d_model": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 64,
    "decoder_start_token_id": 1, "forced_eos_token_id": None, "init_std": 0.5,
}  # fmt: skip
METRICS = {
    "cell": {"name": "2-2-8 2-1", "weight_bits": 2, "embedding_bits": 2, "activation_bits": 8,
             "encoder_layers": 2, "decoder_layers": 1},
    "primary_metric": "wer", "teacher": {"wer": 37.5}, "student": {"wer": 40.25},
    "bytes": {"teacher": 1_000_000},
}  # fmt: skip


def make_run(folder, *overrides):
    """A run directory as a run leaves it, and its student."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"data.path={folder}/words.dict", *overrides])
    torch.manual_seed(2)
    tokenizer = build_g2p_tokenizer()
    student = student_from_scratch(FAMILY, tokenizer, 2, 1, SIZES).eval()
    report = prepare(student, build_recipe(cfg.quant), FAMILY).as_dict()
    with torch.no_grad():  # scales that training has changed
        for name, parameter in student.named_parameters():
            if name.endswith("quantizer.scale"):
                parameter.mul_(1.25)
    artifact = Artifact(folder / "run")
    with artifact.running():
        kept = {key: plain(cfg[key]) for key in ("quant", "data", "teacher", "student")}
        artifact.write_text("config.yaml", OmegaConf.to_yaml(OmegaConf.create(kept)))
        artifact.write_json("quantization.json", report)
        artifact.write_json("metrics.json", METRICS)
        with artifact.directory("student") as students:
            save_student(student, students)
            tokenizer.save_pretrained(students)
    return artifact, student, tokenizer, kept


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("positions", ["8", "32"])
def test_the_file_is_the_runs_own_student(made, positions, tmp_path):
    artifact, student, tokenizer, config = made
    output = tmp_path / "here" / "out.dq"
    main([str(artifact.run_dir), "--output", str(output), "--positions", positions])
    live = tmp_path / "live.dq"
    settings = {"num_beams": 1, "do_sample": False, "max_new_tokens": 48}
    packed, size = pack_run_student(
        live, student, FAMILY, tokenizer, generation=settings, config=config, metrics=METRICS,
        positions_bits=int(positions),
    )  # fmt: skip
    assert output.read_bytes() == live.read_bytes()
    assert len(live.read_bytes()) == size
    for name in ("model.encoder.layers.1.fc2", "model.shared", "lm_head"):
        module = student.get_submodule(name)
        expected = module.weight_quantizer(module.weight).detach()
        torch.testing.assert_close(packed.weight(f"{name}.weight"), expected, rtol=0, atol=0)


def test_the_file_says_all_that_its_user_needs(made, tmp_path, capsys):
    artifact, *_ = made
    main([str(artifact.run_dir)])
    shown = capsys.readouterr().out
    assert "weights of 2 bits" in shown
    assert "times smaller than the teacher in fp32" in shown
    assert shown.rstrip().endswith(f"Packed student: {artifact.run_dir / 'model.dq'}")
    packed = read_packed(artifact.run_dir / "model.dq")
    assert packed.generation["max_new_tokens"] == 48
    assert packed.text["max_source_length"] == 64
    assert {"README.md", "tokenizer.json"} <= packed.files.keys()
    card = packed.files["README.md"].decode()
    assert "wer on the test set: 40.25; the teacher's: 37.5" in card
    assert "2 bits for weights" in card
    for text in (card, json.dumps(packed.config), json.dumps(packed.generation)):
        assert str(artifact.run_dir.parent) not in text


def test_positions_are_those_of_the_run_and_its_file_stays_what_its_metrics_say(tmp_path, capsys):
    artifact, *_ = make_run(tmp_path)
    ran = {"file": "model.dq", "positions_bits": 32}
    artifact.write_json("metrics.json", {**METRICS, "packed": ran})
    main([str(artifact.run_dir)])
    file = artifact.run_dir / "model.dq"
    as_it_ran = file.read_bytes()
    left([artifact.run_dir, "--positions", "8"], "positions of 32 bits; give another", capsys)
    assert file.read_bytes() == as_it_ran
    main([str(artifact.run_dir), "--positions", "8", "--output", str(tmp_path / "small.dq")])
    assert (tmp_path / "small.dq").stat().st_size < len(as_it_ran)


def left(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as leaving:
        main([str(argument) for argument in arguments])
    assert leaving.value.code == 1
    assert sentence in capsys.readouterr().err.splitlines()[0]


def test_what_is_no_finished_run(made, tmp_path, capsys):
    artifact, *_ = made
    left([tmp_path / "nowhere"], "is no run directory", capsys)
    left([artifact.run_dir, "--output", tmp_path], "is a folder; give a file in it", capsys)
    other = Artifact(tmp_path / "run")
    other.write_json("status.json", {"status": "running"})
    left([other.run_dir], "is a run that is running; pack a finished one", capsys)
    other.write_json("status.json", {"status": "finished"})
    left([other.run_dir], "No such file or directory", capsys)
    assert not (other.run_dir / "model.dq").exists()


def test_a_recipe_that_no_file_can_hold(tmp_path, capsys):
    quantizer = "quantizer@quant.weight.quantizer=linear_zero_drop"  # 257 values at 8 bits
    artifact, *_ = make_run(tmp_path, quantizer, "quant.bits=8")
    left([artifact.run_dir], "do not fit into 8 bits", capsys)
    assert not (artifact.run_dir / "model.dq").exists()


def test_lost_scales_and_weights(tmp_path, capsys):
    artifact, *_ = make_run(tmp_path)
    (artifact.student / "quantizers.safetensors").unlink()
    left([artifact.run_dir], "the saved quantizers lack", capsys)
    weights = load_file(artifact.student / "model.safetensors")
    del weights["model.encoder.layers.0.fc1.weight"]
    save_file(weights, artifact.student / "model.safetensors", {"format": "pt"})
    left([artifact.run_dir], "1 weights are missing", capsys)


def test_other_modules_than_the_run_quantized(tmp_path, capsys):
    artifact, *_ = make_run(tmp_path)
    artifact.write_json("quantization.json", {"swapped": {"lm_head": ""}})
    left([artifact.run_dir], "quantized other modules than this version does", capsys)


def test_a_full_disk_leaves_nothing(made, tmp_path, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device", "model.dq")

    monkeypatch.setattr(os, "fsync", full)
    left([made[0].run_dir, "--output", tmp_path / "model.dq"], "No space left", capsys)
    assert list(tmp_path.iterdir()) == []
