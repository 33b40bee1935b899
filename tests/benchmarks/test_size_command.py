"""The size command: the table of DQ-BART byte for byte, from numbers alone."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file
from transformers import T5Config

from dq_lightning.artifacts.packed_file import read_packed
from dq_lightning.benchmarks.size import meta_model, packed_bytes
from dq_lightning.benchmarks.size_command import main, pack_random_weights, sizes
from dq_lightning.models import bart, pegasus, t5
from dq_lightning.quantization.recipe import QuantizationRecipe
from dq_lightning.quantization.ternary import ternary_or_symmetric

ROOT = Path(__file__).parents[2]
PUBLISHED = {
    "6-6": (41_329_344, "13.62", "3.00"),
    "6-3": (34_076_352, "16.50", "3.12"),
    "6-1": (29_241_024, "19.20", "3.20"),
    "3-1": (23_812_800, "23.53", "3.31"),
    "1-1": (20_193_984, "27.70", "3.38"),
}
TWO_BITS = QuantizationRecipe(*2 * [partial(ternary_or_symmetric, 2, "per_row")], None, None)
TINY = ["teacher=bart_base", *(f"teacher.config.{key}={size}" for key, size in {
    "d_model": 32, "vocab_size": 300, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64,
}.items())]  # fmt: skip


def computed(*overrides: str) -> list[int]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return list(sizes(compose("train", list(overrides)))[1].values())


@pytest.mark.parametrize("layers", PUBLISHED)
def test_published_table(layers):
    rule, nominal_ratio, evaluated_ratio = PUBLISHED[layers]
    rows = computed("teacher=bart_base", "quant.bits=2-2-8", f"student.layers={layers}")
    teacher, nominal, reference, evaluated, _ = rows
    assert (teacher, reference) == (557_681_664, rule)
    assert f"{teacher / nominal:.2f}" == nominal_ratio
    assert f"{teacher / evaluated:.2f}" == evaluated_ratio


def test_a_narrow_student_is_the_model_of_its_own_sizes():
    rows = computed("teacher=bart_base", "student.layers=1-1", "student.width=384",
                    "student.num_heads=6", "student.feed_forward=1000")  # fmt: skip
    shape = {"d_model": 384, "encoder_attention_heads": 6, "decoder_attention_heads": 6,
             "encoder_ffn_dim": 1000, "decoder_ffn_dim": 1000}  # fmt: skip
    overrides = [f"teacher.config.{key}={value}" for key, value in shape.items()]
    assert rows[1:] == computed("teacher=bart_base", "student.layers=1-1", *overrides)[1:]
    assert rows[0] == 557_681_664  # the teacher's


def test_as_evaluated_and_packed_by_hand():
    vocabulary, positions, width, inner = 50265, 2 * 1026, 768, 3072
    wanted = ["teacher=bart_base", "quant.bits=2-2-8", "student.layers=1-1"]
    rows = computed(*wanted)
    assert rows[3] == PUBLISHED["1-1"][0] + vocabulary * width * (32 - 2) // 8
    attention, feed_forward, norm = 4 * (width**2), 2 * width * inner, 2 * width
    codes = (vocabulary * width + 3 * attention + 2 * feed_forward) * 2 // 8 + positions * width
    scales = vocabulary + positions + 3 * 4 * width + 2 * (inner + width)
    floats = 3 * 4 * width + 2 * (inner + width) + (2 + 3 + 2) * norm  # biases and norms
    half = codes + 4 * scales + 2 * (floats + vocabulary)  # the last: final_logits_bias, zeros
    assert rows[4] == half + 2 * floats
    narrow = computed(*wanted, "student.save_dtype=float16")
    assert (narrow[:4], narrow[4]) == (rows[:4], half)


@pytest.mark.parametrize("save_dtype", ["float32", "float16"])
@pytest.mark.parametrize(
    "recipe",
    [
        ["quant=none"],
        ["quant.bits=2-4-8"],
        ["quant.bits=8", "quant.head=int8", "quant.exclude=[*.fc1]"],
        ["quant=dq_bart"],
        ["quant=tbt", "quant.bits=1-1-8"],
        ["quant=stretched"],
        ["quantizer@quant.weight.quantizer=lsq_plus"],
        ["quantizer@quant.weight.quantizer=per_group"],
    ],
)
def test_the_estimate_is_what_a_packed_file_holds(tmp_path, recipe, save_dtype):
    """To the byte, where codes have 1, 2, 4 or 8 bits: scales, zero points and what stays a float.

    As runs store it: in float32 unless the config says float16.
    """
    chosen = [] if save_dtype == "float32" else [f"student.save_dtype={save_dtype}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [*TINY, "student.layers=2-1", *recipe, *chosen])
    pack_random_weights(cfg, tmp_path / "model.dq")
    packed = read_packed(tmp_path / "model.dq")
    assert list(sizes(cfg)[1].values())[4] == packed.nbytes
    assert packed.tensors["model.encoder.layers.0.fc1.bias"].dtype == getattr(torch, save_dtype)
    assert packed.tensors["final_logits_bias"].dtype == torch.float16


def test_a_recipe_that_no_file_can_hold_has_its_other_sizes():
    recipe = ["quantizer@quant.weight.quantizer=linear_zero_drop", "quant.bits=8"]
    assert len(computed(*TINY, "student.layers=1-1", *recipe)) == 4


@pytest.mark.parametrize(("head", "added"), [("fp", 16 * 24 * 4), ("int8", 16 * 24 + 24 * 4)])
def test_a_head_of_its_own_is_packed_beside_the_embedding(head, added):
    config = T5Config(vocab_size=24, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    recipe, own = TWO_BITS, replace(TWO_BITS, head=head)
    tied = meta_model(config, t5.FAMILY, (1, 1))
    untied = meta_model(config, t5.FAMILY, (1, 1), tied=False)
    base = packed_bytes(tied, recipe, t5.FAMILY)
    assert packed_bytes(tied, own, t5.FAMILY) == base + added
    assert packed_bytes(untied, own, t5.FAMILY) == base + added
    assert packed_bytes(untied, recipe, t5.FAMILY) == base + 16 * 24 * 2 // 8 + 24 * 4
    excluded = packed_bytes(tied, replace(own, exclude=("lm_head",)), t5.FAMILY)
    assert excluded == base + 16 * 24 * 4


def test_computed_positions_are_not_packed():
    small = {"d_model": 16, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "vocab_size": 24}
    by_length = {}
    for family in (bart.FAMILY, pegasus.FAMILY):
        config_class = family.model_class.config_class
        by_length[family.name] = [
            packed_bytes(
                meta_model(config_class(**small, max_position_embeddings=length), family, (1, 1)),
                TWO_BITS,
                family,
            )
            for length in (32, 64)
        ]
    assert by_length["pegasus"][0] == by_length["pegasus"][1]
    assert by_length["bart"][1] - by_length["bart"][0] == 2 * 32 * (16 + 4)


def test_a_folder_needs_no_weights_but_says_by_them_whether_it_is_tied(tmp_path):
    sizes_of_t5 = {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1}
    config = {"model_type": "t5", "num_heads": 2, **sizes_of_t5}
    file = tmp_path / "config.json"
    options = ("teacher=hub", f"teacher.path={tmp_path}", "student.layers=1")
    totals = []
    for changes in ({}, {"tie_word_embeddings": False}):
        file.write_text(json.dumps(config | changes))
        totals.append(computed(*options)[0])
    assert totals[1] - totals[0] == 64 * 16 * 4
    file.write_text(json.dumps(config))
    save_file({"lm_head.weight": torch.zeros(64, 16)}, tmp_path / "model.safetensors")
    assert computed(*options)[0] == totals[1]


def test_the_command_prints_the_table():
    command = [sys.executable, "-m", "dq_lightning.benchmarks.size", "teacher=bart_base",
               "quant.bits=2-2-8", "student.layers=6-3", "student.num_heads=6"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = [re.sub(r" +", " ", line).strip() for line in done.stdout.splitlines()]
    assert lines[0] == "bart 6-6 as 2-2-8 6-3 num_heads=6"
    assert "nominal, published accounting 33,808,512 16.50x" in lines
    assert "nominal, reference code's rule 34,076,352 16.37x" in lines
    assert "as evaluated, head in fp32 178,839,552 3.12x" in lines


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["quant.bitz=2"], "Did you mean quant.bits"),
        (["teacher=bart_bas"], "There is no teacher=bart_bas; the options, nearest first"),
        (["quant.bits=2-2"], "write an integer from 1 to 8, or W-E-A such as 2-2-8"),
        (["student.layers=9"], "only 6; write student.layers=6 or fewer."),
        (["student.num_heads=5"], "write one of 1, 2, 4, or null for the teacher's."),
        (["student.save_dtype=float8"], "student.save_dtype=float8 is unknown; write one of"),
        (["teacher=none"], "teacher=none has no size; write"),
        (["teacher=hub"], "teacher.path has no value"),
        (["teacher=./nowhere"], "there is no such folder"),
    ],
)
def test_mistakes_are_one_sentence(arguments, sentence, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["size", *arguments])
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 1
    first, hint = capsys.readouterr().err.splitlines()
    assert sentence in first
    assert "HYDRA_FULL_ERROR" in hint


def test_elsewhere_it_says_where_to_run_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([])
    assert "run this in the repository's root" in capsys.readouterr().err


def test_json_holds_the_tables_bytes_and_its_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    overrides = ["teacher=bart_base", "quant=dq_bart", "student.layers=6-3"]
    main([*overrides, "--json", str(tmp_path / "here" / "size.json")])
    record = json.loads((tmp_path / "here" / "size.json").read_text())
    assert record["bytes"]["reference_rule"] == 34_076_352
    assert record["bytes"]["saved_buffers"] == 50_265 * 4  # final_logits_bias
    assert record["environment"]["command"].endswith(" ".join(overrides))
    assert "34,076,352" in capsys.readouterr().out


BARS = {"6-6": 29_500_000, "6-3": 23_800_000, "6-1": 20_000_000, "3-1": 15_700_000,
        "1-1": 12_800_000}  # fmt: skip


def packed(tmp_path, monkeypatch, *overrides):
    """Bytes on disk by the command's own JSON, and the file."""
    monkeypatch.chdir(ROOT)
    file, record = tmp_path / "out.dq", tmp_path / "size.json"
    main([*overrides, "--packed", str(file), "--json", str(record)])
    stored = json.loads(record.read_text())["bytes"]["stored"]
    assert stored == file.stat().st_size
    return stored, file


@pytest.mark.parametrize("head", ["tied", "fp"])
def test_a_random_student_is_really_packed(tmp_path, monkeypatch, capsys, head):
    recipe = ["quant.bits=2-4-8", f"quant.head={head}", "student.layers=2-1"]
    recipe += ["student.save_dtype=float16"]
    stored, file = packed(tmp_path, monkeypatch, *TINY, *recipe)
    assert f"{stored:,}" in capsys.readouterr().out
    student = read_packed(file)
    assert student.config["encoder_layers"] == 2
    assert student.matrices["model.decoder.layers.0.fc1.weight"].bits == 2
    assert student.matrices["model.shared.weight"].bits == 4
    assert student.matrices["model.encoder.embed_positions.weight"].bits == 8
    assert ("lm_head.weight" in student.tensors) == (head == "fp")
    assert not student.files
    biases = student.tensors["model.encoder.layers.0.fc1.bias"]
    assert biases.dtype == torch.float16
    assert len(biases.unique()) > 40  # constants would compress to nothing


def test_the_same_command_packs_the_same_bytes(tmp_path, monkeypatch):
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files.append(packed(tmp_path / name, monkeypatch, *TINY)[1])
    assert files[0].read_bytes() == files[1].read_bytes()


SLOW = [pytest.param(layers, marks=pytest.mark.slow) for layers in BARS if layers != "1-1"]


@pytest.mark.parametrize("layers", ["1-1", *SLOW])
def test_bart_base_at_two_bits_on_disk(tmp_path, monkeypatch, layers):
    """With the command of experiments/packed/README.md, whose table is held here."""
    text = (ROOT / "experiments/packed/README.md").read_text(encoding="utf-8")
    command = re.search(r"benchmarks\.size (teacher=bart_base .*) --packed", text)
    row = re.search(rf"^\| {layers} \| ([\d,]+) \|", text, re.MULTILINE)
    assert command is not None and row is not None
    overrides = command[1].replace("student.layers=6-1", f"student.layers={layers}").split()
    stored, _ = packed(tmp_path, monkeypatch, *overrides)
    assert 0.9 * BARS[layers] < stored <= BARS[layers]
    assert abs(stored - int(row[1].replace(",", ""))) <= 0.001 * stored  # as zstd's version has it
