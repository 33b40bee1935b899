"""Packed students load and generate: no teacher, no Hydra, no Lightning."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dq_lightning.runtime.loading import Runtime, load

__all__ = ["Runtime", "load"]


def __getattr__(name: str) -> Any:
    """Import torch and transformers at the first use of `load`, not for a --help."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dq_lightning.runtime import loading

    return getattr(loading, name)
