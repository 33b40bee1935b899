"""Packed students load and generate: no teacher, no Hydra, no Lightning."""
