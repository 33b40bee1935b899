"""Packages that only exports and comparisons need."""

import importlib
from typing import Any


def optional_package(name: str) -> Any:
    """Import a module, or say in one sentence how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"The package {name.partition('.')[0]} is not installed: "
            "pip install 'dq-lightning[export]'."
        ) from error
