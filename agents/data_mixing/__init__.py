"""Heuristics, oracles and learned agents of data mixing."""
