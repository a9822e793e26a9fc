"""The class of each pixel of images, from PNG masks beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from fingerpost.deploy.image_files import ImageFiles
from fingerpost.errors import ConfigurationError, InvalidRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MaskFolder", "MaskedImage"]

# As Pillow calls masks that hold numbers: gray of 8 and 16 bits, and palettes.
_MODES = ("1", "L", "P", "I", "I;16", "I;16B")

# Gray of 2 and 4 bits, which Pillow stretches to 0 to 255.
_STRETCHED = ("L;2", "L;4")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedImage:
    """An image, and the file of its mask."""

    path: str
    mask: Path

    def classes(self) -> NDArray[Any]:
        """The class of each pixel: int64 `[height, width]`.

        Raises:
            InvalidRequest: the mask cannot be read, or its values are not class numbers.
        """
        import numpy as np

        try:
            with Image.open(self.mask) as opened:
                stored = opened.tile[0].args if opened.tile else opened.mode
                if opened.mode not in _MODES or stored in _STRETCHED:
                    raise InvalidRequest(
                        f"the mask {self.mask} has pixels of mode {stored}: they must be gray of 8 "
                        "or 16 bits, or have a palette, and their values be class numbers"
                    )
                return np.asarray(opened).astype(np.int64)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InvalidRequest(f"the mask {self.mask} cannot be read: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFolder:
    """Images of a folder with a mask of the same name, as PNG, in another.

    Attributes:
        images: in the order of their paths.
        skipped: what lies there and is not an image, as text; empty if there is nothing.
    """

    images: list[MaskedImage] = field(repr=False)
    skipped: str = ""

    @classmethod
    def read(cls, images: Path, masks: Path) -> MaskFolder:
        """Find images and masks; they are not opened.

        Raises:
            ConfigurationError: a folder is missing, there are no images, or one has no mask.
        """
        for folder in (images, masks):
            if not folder.is_dir():
                raise ConfigurationError(
                    f"there is no folder {str(folder)!r}: --images and --masks must be folders"
                )
        if masks.resolve() == images.resolve():
            raise ConfigurationError(
                f"--masks {str(masks)!r} is the folder of the images: put the masks in another one"
            )
        files = ImageFiles([str(images)])
        found = []
        for name in files.names():
            path = Path(name)
            if masks in path.parents:
                continue
            mask = (masks / path.relative_to(images)).with_suffix(".png")
            if not mask.is_file():
                raise ConfigurationError(
                    f"the image {name!r} has no mask {str(mask)!r}: each image needs one of its "
                    "name, as PNG, whose values are class numbers"
                )
            found.append(MaskedImage(path=name, mask=mask))
        return cls(images=found, skipped=files.skipped())
