"""Data mixing for real: a byte-level GPT trained on local text."""
