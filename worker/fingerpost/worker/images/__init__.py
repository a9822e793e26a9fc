"""From an encoded image to the pixels a model takes.

`fingerpost.client.images.decoding` has the rules by which images are decoded; `resize` brings one
to a model's size, and `preprocess` does both. Importing this package silences Pillow and libtiff.
"""

from fingerpost.client.images.decoding import FORMATS, ImageConfig, open_image
from fingerpost.worker.images.decoders import set_up_decoders
from fingerpost.worker.images.preprocess import decode, fit, prepare, reencode

__all__ = ["FORMATS", "ImageConfig", "decode", "fit", "open_image", "prepare", "reencode"]

set_up_decoders()
