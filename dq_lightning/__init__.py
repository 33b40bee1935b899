"""dq_lightning: joint distillation and quantization of sequence-to-sequence transformers."""
