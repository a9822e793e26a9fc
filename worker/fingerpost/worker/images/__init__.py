"""From bytes that somebody sent to the pixels a model takes.

`opening` judges an image by its header, `resizing` brings it to a model's size, and `preparing`
does both for one image.
"""

from fingerpost.worker.images.decode import FORMATS, ImageLimits, open_image
from fingerpost.worker.images.preprocess import decode, fit, prepare, reencode

__all__ = ["FORMATS", "ImageLimits", "decode", "fit", "open_image", "prepare", "reencode"]
