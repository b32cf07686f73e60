"""Agents of radio slicing: rules, bounds, learned ones."""
