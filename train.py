"""Distil and quantize a sequence-to-sequence transformer: `python train.py [key=value ...]`.

Every choice is a key of conf/train.yaml; -m sweeps over comma-separated values.
"""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from dq_lightning.errors import one_sentence_errors, past_hydra
from dq_lightning.sweeps import launcher, resolvers, search
from dq_lightning.sweeps.overrides import teacher_shorthand

CONFIG_DIR = Path(__file__).parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name="train")
def main(cfg: DictConfig) -> float | None:
    from dq_lightning.sweeps.cell import run_job  # later: a misspelt key fails in a second

    with past_hydra():
        return run_job(cfg)


if __name__ == "__main__":
    with one_sentence_errors(CONFIG_DIR, "train"):
        for part in (resolvers, launcher, search):
            part.register()
        sys.argv[1:] = teacher_shorthand(sys.argv[1:], CONFIG_DIR)
        main()
