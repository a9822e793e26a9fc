"""Streams of images: one session for many of them, whichever protocol carries it."""
