"""Measurements: sizes, latencies and memory, as plain numbers."""
