"""Strategy selection: one strategy per operator."""
