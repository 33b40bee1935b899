"""Data: sources of text pairs, tokenization, batching."""
