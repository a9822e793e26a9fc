"""Streams of images: how many are in flight, and results as they are ready."""
