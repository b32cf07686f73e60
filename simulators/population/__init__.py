"""Populations: what a member's state is, what training it does, what it takes."""
