"""The rules by which encoded images become pixels, the same for clients and workers.

`opening` checks an image by its header, `pixels` decodes it: gray or colours of 8 bits, upright,
and on white where it is transparent. Workers decode with it what they get; clients decode with it
what they make smaller before they send it.
"""

from fingerpost.client.images.decoding.config import ImageConfig
from fingerpost.client.images.decoding.opening import FORMATS, open_image
from fingerpost.client.images.decoding.pixels import SIDEWAYS, guarded, load, to_mode, turn_of

__all__ = [
    "FORMATS",
    "SIDEWAYS",
    "ImageConfig",
    "guarded",
    "load",
    "open_image",
    "to_mode",
    "turn_of",
]
