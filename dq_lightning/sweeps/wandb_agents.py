"""A grid for W&B's agents: ``python -m dq_lightning.sweeps.wandb_agents [key=value,... ...]``.

The words are those of ``python train.py -m``. Printed is the YAML that ``wandb sweep`` reads: keys
with several values become its parameters, all others part of the command.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.utils import get_class

from dq_lightning.errors import one_sentence_errors
from dq_lightning.sweeps.overrides import teacher_shorthand


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the sweep, or one sentence on stderr and exit with 1."""
    name = "python -m dq_lightning.sweeps.wandb_agents"
    parser = argparse.ArgumentParser(name, description=__doc__)
    parser.add_argument("overrides", nargs="+", metavar="key=value", help="as for train.py -m")
    overrides: list[str] = parser.parse_args(arguments).overrides
    folder = Path.cwd() / "conf"
    with one_sentence_errors(folder, "train"):
        if not (folder / "train.yaml").is_file():
            raise ValueError(
                f"There is no config tree at {folder}; run this in the repository's root, where "
                "train.py and conf/ are."
            )
        print(yaml.safe_dump(agents_sweep(overrides, folder), sort_keys=False), end="")


def agents_sweep(overrides: Sequence[str], config_dir: Path) -> dict[str, Any]:
    """The sweep as W&B wants it: program, method, metric, parameters, command.

    Raises ValueError where no key has several values, and Hydra's errors for a key there is not.
    """
    words = teacher_shorthand(overrides, config_dir)
    parsed = OverridesParser.create().parse_overrides(words)
    swept = {o.get_key_element(): _values(o) for o in parsed if o.is_sweep_override()}
    if not swept:
        raise ValueError("No key has several values; give some, such as quant.bits=2,4,8.")
    fixed = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
    first = [f"{key}={values[0]}" for key, values in swept.items()]
    with initialize_config_dir(str(config_dir.resolve()), version_base="1.3"):
        cfg = compose("train", [*fixed, *first])
    metric: Any = get_class(cfg.metric._target_)
    return {
        "program": "train.py",
        "method": "grid",
        "project": cfg.logger.wandb.project if "wandb" in cfg.logger else "dq_lightning",
        "metric": {
            "name": f"student/{metric.primary}",
            "goal": "maximize" if metric.higher_is_better else "minimize",
        },
        "parameters": {key: {"values": values} for key, values in swept.items()},
        "command": ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}", *fixed],
    }


def _values(override: Override) -> list[Any]:
    """Each value as the command line would have it; whole numbers as such, so that W&B sorts."""
    if override.is_interval_sweep() or isinstance(override.value(), Glob):
        raise ValueError(
            f"{override.input_line} lists no values, which a grid needs; write them out, such as "
            "quant.bits=2,4,8."
        )
    texts = [str(text) for text in override.sweep_string_iterator()]
    return [int(text) if text.isdecimal() else text for text in texts]


if __name__ == "__main__":
    main()
