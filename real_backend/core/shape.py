"""Shapes of the decoders that real back ends run."""

from __future__ import annotations

MODELS: dict[str, dict[str, int]] = {
    "gpt-narrow": {"d": 192, "layers": 4, "vocabulary": 512, "rows": 128, "batch": 8},
    "gpt-wide": {"d": 320, "layers": 3, "vocabulary": 512, "rows": 96, "batch": 6},
    "gpt-long": {"d": 128, "layers": 4, "vocabulary": 256, "rows": 256, "batch": 6},
    "gpt2-124m": {"d": 768, "layers": 12, "vocabulary": 50257, "rows": 1024, "batch": 4},
}
"""Models of the real back end; ``gpt2-124m`` is meant for a GPU."""
