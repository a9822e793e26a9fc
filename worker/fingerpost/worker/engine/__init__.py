"""Batches: which images run together, when, and on which threads."""
