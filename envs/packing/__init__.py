"""Packing: offsets for buffers with fixed lifetimes."""
