"""What README.md says is so: its commands compose, its files exist, its first screen is short."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from dq_lightning.models.layer_mapping import parse_layers
from dq_lightning.quantization.recipe import parse_bits
from dq_lightning.sweeps.overrides import teacher_shorthand

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
README = (ROOT / "README.md").read_text(encoding="utf-8")
FIRST_SCREEN = README.partition("\n## ")[0]


def commands(text: str) -> list[str]:
    """The lines of ```bash blocks, continued lines joined, comments and blank lines left out."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if shlex.split(line, comments=True)]


def training_runs() -> list[str]:
    """Every `python train.py ...` of the code blocks, other parts of its line cut off."""
    parts = [part for line in commands(README) for part in line.split("&&")]
    return [part.strip() for part in parts if "python train.py" in part]


def overrides_of(command: str) -> list[str]:
    """The overrides of one run: of a sweep's values the first."""
    words = shlex.split(command, comments=True)
    given = [word for word in words[words.index("train.py") + 1 :] if word not in ("-m", "--help")]
    single = []
    for override in OverridesParser.create().parse_overrides(teacher_shorthand(given, CONF)):
        if override.is_sweep_override():
            assert "-m" in words, f"{command}: a sweep needs -m"
            first = next(iter(override.sweep_string_iterator()))
            single.append(f"{override.get_key_element()}={first}")
        else:
            single.append(str(override.input_line))
    return single


@pytest.mark.parametrize("command", training_runs())
def test_every_training_command_composes(command):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides_of(command))
    assert parse_bits(cfg.quant.bits)
    assert parse_layers(cfg.student.layers)


def test_first_screen_holds_two_commands():
    assert len(FIRST_SCREEN.splitlines()) <= 30
    run, tests = commands(FIRST_SCREEN)
    assert run == 'pip install -e ".[demo]" && python train.py'
    assert tests.endswith("&& pytest -q")
    assert FIRST_SCREEN.count("```") == 4


def test_ci_runs_the_test_command_word_for_word():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert commands(FIRST_SCREEN)[1] == [line for line in script if line][-1]


def test_the_slow_marker_is_the_documented_one():
    assert "pytest -q -m slow" in commands(README)
    assert "slow: " in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_every_file_named_exists():
    prose = re.sub(r"^```(?!\n).*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"\b(?:conf|dq_lightning|tests|experiments)/[\w./-]*\w", prose))
    named |= set(re.findall(r"`([\w.-]+\.(?:py|toml|md))`", prose)) - {"report.md"}
    assert "conf/train.yaml" in named
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_every_module_run_with_m_exists():
    for module in re.findall(r"python -m ([\w.]+)", README):
        folder = ROOT / Path(*module.split("."))
        assert (folder / "__main__.py").is_file() or folder.with_suffix(".py").is_file()


def test_every_option_named_in_prose_exists():
    groups = {folder.name for folder in CONF.iterdir() if folder.is_dir()}
    named = re.findall(r"`(\w+)=([a-z]\w*)`", README)
    missing = [
        f"{g}={o}" for g, o in named if g in groups and not (CONF / g / f"{o}.yaml").exists()
    ]
    assert missing == []
    assert ("data", "cnn_dailymail") in named


def test_every_preset_is_named():
    hub = {f.stem for f in (CONF / "data").glob("*.yaml") if "\n  - hub\n" in f.read_text()}
    assert hub <= set(re.findall(r"`data=(\w+)`", README))


def test_results_have_their_place():
    start, end = README.index("<!-- results:start -->"), README.index("<!-- results:end -->")
    assert README[start:end].count("\n") > 1
