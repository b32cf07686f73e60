"""Populations for real: stacked models on one device, trials on Ray."""
