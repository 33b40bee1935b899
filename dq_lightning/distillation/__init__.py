"""Losses between a student and its teacher: masked to real tokens, one file a loss."""
