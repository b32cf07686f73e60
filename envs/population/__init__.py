"""Populations: divide training steps over members that may copy each other."""
