"""Fake quantization: quantizers, quantized modules, and the preparation of a model."""
