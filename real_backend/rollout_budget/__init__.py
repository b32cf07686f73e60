"""Real GRPO runs of a character transformer."""
