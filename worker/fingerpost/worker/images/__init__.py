"""From an encoded image to the pixels a model takes.

`decode` checks an image by its header, `resize` brings it to a model's size, and `preprocess` does
both for one image.
"""

from fingerpost.worker.images.config import ImageConfig
from fingerpost.worker.images.decode import FORMATS, open_image
from fingerpost.worker.images.preprocess import decode, fit, prepare, reencode

__all__ = ["FORMATS", "ImageConfig", "decode", "fit", "open_image", "prepare", "reencode"]
