"""Data mixing: divide training tokens over data domains."""
