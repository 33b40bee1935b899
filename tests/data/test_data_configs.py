from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from transformers import GenerationConfig

from dq_lightning.data.g2p_tokenizer import build_g2p_tokenizer
from dq_lightning.data.hub import Hub
from dq_lightning.data.jsonl import Files
from dq_lightning.data.tokenization import TokenizationConfig, tokenized_splits

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
NAMES = sorted(path.stem for path in (ROOT / "conf" / "data").glob("*.yaml"))
PRESETS = sorted(set(NAMES) - {"g2p", "hub", "jsonl"})
COMMON = {
    "reader", "max_source_length", "max_target_length", "source_prefix", "batch_size",
    "eval_batch_size", "num_workers", "limit_train", "limit_validation", "limit_test", "generation",
    "source_language", "target_language",
}  # fmt: skip


def composed(*overrides):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", list(overrides))


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_has_the_common_keys_and_a_metric(name):
    cfg = composed(f"data={name}", *(["data.name=x/y"] if name == "hub" else []))
    assert set(cfg.data) >= COMMON
    expected = {"g2p": "PhonemeErrorMetric", "wmt16_en_ro": "BleuMetric"}
    assert cfg.metric._target_.endswith(expected.get(name, "RougeMetric"))
    settings = OmegaConf.to_container(cfg.data.generation)
    assert set(settings) <= set(GenerationConfig().to_dict())
    GenerationConfig(**settings).validate()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_its_source(name):
    source = instantiate(composed(f"data={name}").data.reader)
    assert isinstance(source, Hub) and source.name.count("/") == 1
    assert source.names.keys() == {"train", "validation", "test"}


@pytest.mark.parametrize("name", NAMES)
def test_the_metric_can_be_chosen_on_the_command_line(name):
    name_of_hub = ["data.name=x/y"] if name == "hub" else []
    for metric in ("g2p", "rouge", "bleu"):
        cfg = composed(f"data={name}", f"metric={metric}", *name_of_hub)
        assert cfg.metric == composed("data=g2p", f"metric={metric}").metric


def shared(name):
    files = {
        split: SHARED / name / f"{split}.jsonl.xz" for split in ("train", "validation", "test")
    }
    if not all(path.is_file() for path in files.values()):
        pytest.skip(f"{name} is not here")
    return [f"data.{split}={path}" for split, path in files.items()]


@pytest.mark.parametrize(
    ("name", "overrides", "rows", "references"),
    [
        ("scitldr-a", ["data.source=document", "data.target=summary", "data.references=summaries"],
         (1992, 619, 618), 2),
        ("dialogsum", ["data.source=document", "data.target=summary",
                       "data.references=[summary,summary2,summary3]"], (12460, 500, 500), 3),
        ("pubmedqa-long", ["data.source=[question,context]", "data.target=answer"],
         (454, 46, 500), 1),
    ],
)  # fmt: skip
def test_real_files_from_config_to_ids(tmp_path, name, overrides, rows, references):
    reader = instantiate(composed("data=jsonl", *shared(name), *overrides).data.reader)
    assert isinstance(reader, Files)
    splits, _ = tokenized_splits(
        reader, build_g2p_tokenizer(), TokenizationConfig(64, 32), tmp_path
    )
    assert tuple(len(splits[split]) for split in ("train", "validation", "test")) == rows
    assert max(len(r) for r in splits["test"]["references"]) >= references
    assert max(len(ids) for ids in splits["train"]["labels"]) == 32
