"""Decoding JPEGs: which library, and how much smaller."""
