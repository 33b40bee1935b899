"""Load a packed student and generate text with it."""
