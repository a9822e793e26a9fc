"""Models, batching, image decoding, HTTP serving, training. Importing it loads no framework."""

from fingerpost.registry.version import __version__

__all__ = ["__version__"]
