"""The walls between the folders, the house style a machine can hold, and every class's YAML."""

import ast
import fnmatch
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import subprocess
import sys
from abc import ABC
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import dq_lightning
from dq_lightning.data.source import DataSource
from dq_lightning.distillation.loss import Loss
from dq_lightning.evaluation.metric import Metric
from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.sweeps import launcher

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dq_lightning"
CONF = ROOT / "conf"

# The data's flow: a folder imports only what stands to its left. Evaluation stands before training,
# because the module that trains also validates.
FLOW = (
    "data models quantization distillation evaluation training artifacts runtime benchmarks "
    "reporting"
).split()

# Narrower than the flow, where the design says so.
NEIGHBOURS = {
    "data": set(),
    "models": set(),
    "quantization": set(),
    "distillation": set(),
    "evaluation": set(),
    "training": {"data", "models", "quantization", "distillation", "evaluation"},
    "reporting": {"artifacts"},
    "sweeps": {"artifacts", "reporting", "choices", "errors", "run", "training"},
}
# The command lines of two benchmarks compose a config, as train.py does; that of packing reads the
# config of a run.
MORE_NEIGHBOURS = {
    "dq_lightning/artifacts/pack.py": {"choices", "errors"},
    "dq_lightning/benchmarks/size_command.py": {"choices", "errors", "sweeps"},
    "dq_lightning/benchmarks/latency_command.py": {"errors"},
    "dq_lightning/benchmarks/latency_subject.py": {"choices"},
}

# Third-party packages of a folder; folders not named here may use any but CONFIG and LIGHTNING.
LIBRARIES = {
    "data": set(
        "torch transformers tokenizers datasets pyarrow filelock pytorch_lightning".split()
    ),
    "models": {"torch", "transformers", "safetensors", "jaxtyping"},
    "quantization": {"torch", "jaxtyping"},
    "distillation": {"torch", "jaxtyping"},
    "reporting": {"rich", "matplotlib", "yaml"},
    "sweeps": {"hydra", "omegaconf", "yaml", "filelock", "rich", "wandb", "torch"},
}
# Registers the attention function and its mask with transformers.
MORE_LIBRARIES = {"dq_lightning/quantization/attention.py": {"transformers"}}

COMPOSITION_ROOT = {
    "dq_lightning/run.py",
    "dq_lightning/composition.py",
    "dq_lightning/packing.py",
    "dq_lightning/training_composition.py",
    "dq_lightning/devices.py",
}
# What stands around a run asks training which process is the first, and whether W&B has a key.
AROUND_RUNS = {"dq_lightning/sweeps/cell.py", "dq_lightning/sweeps/wandb_summary.py"}
CHECKS = {"dq_lightning/checks.py", "dq_lightning/choices.py"}
CONFIG = {"hydra", "omegaconf"}
READS_CONFIG = (
    COMPOSITION_ROOT
    | CHECKS
    | {
        "train.py",
        "dq_lightning/artifacts/pack.py",
        "dq_lightning/errors.py",
        "dq_lightning/sweeps/*",
        "dq_lightning/benchmarks/size_command.py",
        "dq_lightning/benchmarks/latency_subject.py",
    }
)
LIGHTNING = {"pytorch_lightning"}
USES_LIGHTNING = COMPOSITION_ROOT | {
    "dq_lightning/training/*",
    "dq_lightning/data/datamodule.py",
}

TOP_LEVEL = set(
    "conf dq_lightning experiments tests train.py pyproject.toml README.md LICENSE".split()
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_files(*folders: str) -> list[Path]:
    return sorted(f for folder in folders for f in (ROOT / folder).rglob("*.py"))


SOURCES = [*python_files("dq_lightning"), ROOT / "train.py"]
ALL_PYTHON = [*SOURCES, *python_files("tests", "experiments")]


def imports(path: Path) -> set[str]:
    """Every module a file imports, at any depth; `from a.b import c` gives a.b and a.b.c."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: write absolute imports"
            module = str(node.module)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def roots(path: Path) -> set[str]:
    return {module.partition(".")[0] for module in imports(path)}


def libraries(path: Path) -> set[str]:
    own = {"dq_lightning", "typing_extensions"}  # the latter: later Pythons' typing
    return roots(path) - sys.stdlib_module_names - own


def neighbours(path: Path) -> set[str]:
    """Folders and top-level modules of dq_lightning that a file imports, its own folder aside."""
    parts = {m.split(".")[1] for m in imports(path) if m.startswith("dq_lightning.")}
    return parts - {path.parent.name}


def matches(path: Path, patterns: set[str]) -> bool:
    return any(fnmatch.fnmatchcase(name_of(path), pattern) for pattern in patterns)


def in_folders() -> Iterator[tuple[str, Path]]:
    for path in python_files("dq_lightning"):
        folder = path.relative_to(PACKAGE).parts[0]
        if (PACKAGE / folder).is_dir():
            yield folder, path


def test_every_folder_has_its_place_in_the_flow():
    folders = {f.name for f in PACKAGE.iterdir() if f.is_dir() and any(f.glob("*.py"))}
    assert folders <= {*FLOW, "sweeps"}


def test_folders_import_only_what_stands_before_them():
    for folder, path in in_folders():
        left = set(FLOW[: FLOW.index(folder)]) if folder in FLOW else set(FLOW)
        allowed = NEIGHBOURS.get(folder, left - {"training"})
        allowed = allowed | MORE_NEIGHBOURS.get(name_of(path), set())
        assert neighbours(path) <= allowed, f"{name_of(path)} imports past a wall"


def test_folders_use_only_their_libraries():
    for folder, path in in_folders():
        if folder in LIBRARIES:
            allowed = LIBRARIES[folder] | MORE_LIBRARIES.get(name_of(path), set())
            assert libraries(path) <= allowed, f"{name_of(path)} imports past a wall"


def test_only_the_composition_root_imports_training():
    found = [p for p in SOURCES if "training" in neighbours(p)]
    allowed = COMPOSITION_ROOT | AROUND_RUNS
    assert [name_of(path) for path in found if not matches(path, allowed)] == []


def test_only_the_edge_reads_config():
    found = [p for p in SOURCES if roots(p) & CONFIG and not matches(p, READS_CONFIG)]
    assert [name_of(path) for path in found] == []


def test_only_training_and_the_data_module_use_lightning():
    found = [p for p in SOURCES if roots(p) & LIGHTNING and not matches(p, USES_LIGHTNING)]
    assert [name_of(path) for path in found] == []


def test_nothing_imports_experiments_or_tests():
    found = [p for p in SOURCES if roots(p) & {"experiments", "tests"}]
    assert [name_of(path) for path in found] == []


def test_the_package_lightning_is_neither_imported_nor_installed_compromised():
    assert [name_of(p) for p in ALL_PYTHON if "lightning" in roots(p)] == []
    for package in ("lightning", "pytorch-lightning"):
        versions = [d.version for d in importlib.metadata.distributions(name=package)]
        assert not {"2.6.2", "2.6.3"} & set(versions), f"{package} {versions} was compromised"


def test_reports_are_built_without_torch():
    files = [PACKAGE / "artifacts" / "artifact.py", *python_files("dq_lightning/reporting")]
    modules = [
        ".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for f in files
    ]
    code = (
        "import importlib, sys\n"
        "for name in ('torch', 'transformers', 'pytorch_lightning', 'hydra', 'omegaconf'):\n"
        "    sys.modules[name] = None\n"
        f"for name in {modules}: importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("path", ALL_PYTHON, ids=name_of)
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 50, f"{node.name} has more than 50 lines"


def test_no_file_is_a_drawer():
    drawers = {"utils", "helpers", "common"}
    named = [*PACKAGE.rglob("*"), *(ROOT / "tests").rglob("*"), *(ROOT / "experiments").rglob("*")]
    assert [name_of(p) for p in named if p.stem in drawers] == []


def test_nothing_is_left_to_do():
    marker = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME")) + r")\b")
    files = [
        *ALL_PYTHON,
        *CONF.rglob("*.yaml"),
        *(ROOT / "experiments").rglob("*.md"),
        ROOT / "README.md",
        ROOT / "pyproject.toml",
    ]
    assert [name_of(f) for f in files if marker.search(f.read_text(encoding="utf-8"))] == []


def test_the_top_level_is_what_the_owner_fixed():
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    ignored = [line.strip("/") for line in lines if not line.startswith("#")]
    entries = {entry.name for entry in ROOT.iterdir() if not entry.name.startswith(".")}
    kept = {e for e in entries if not any(fnmatch.fnmatchcase(e, p) for p in ignored)}
    assert kept <= TOP_LEVEL
    assert TOP_LEVEL - {"experiments"} <= kept  # without a study, experiments/ need not exist


def config_targets() -> dict[str, list[str]]:
    """_target_ -> the YAML files that name it."""
    found: dict[str, list[str]] = {}
    for file in sorted(CONF.rglob("*.yaml")):
        pending = [OmegaConf.to_container(OmegaConf.load(file))]
        while pending:
            node = pending.pop()
            if isinstance(node, dict):
                if "_target_" in node:
                    found.setdefault(node["_target_"], []).append(name_of(file))
                pending += node.values()
            elif isinstance(node, list):
                pending += node
    return found


TARGETS = config_targets()


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_target_is_importable(target):
    launcher.register()  # gives Hydra's namespace a module of ours
    module, _, attribute = target.rpartition(".")
    assert callable(getattr(importlib.import_module(module), attribute, None)), TARGETS[target]


def concrete_classes(base: type[ABC]) -> list[type]:
    """Subclasses of `base` in the package, wherever they are."""
    for module in pkgutil.walk_packages(dq_lightning.__path__, "dq_lightning."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    pending, found = [base], []
    while pending:
        subclasses = pending.pop().__subclasses__()
        pending += subclasses
        found += [c for c in subclasses if c.__module__.startswith("dq_lightning.")]
    return [c for c in found if not inspect.isabstract(c)]


@pytest.mark.parametrize("base", [FakeQuantizer, Loss, DataSource, Metric])
def test_every_class_has_its_yaml(base):
    classes = concrete_classes(base)
    assert classes
    without = [c for c in classes if f"{c.__module__}.{c.__qualname__}" not in TARGETS]
    assert without == [], f"write a YAML in conf/ for these subclasses of {base.__name__}"
