"""Hydra hooks that watch a sweep."""
