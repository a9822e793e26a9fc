"""WebP: what the first frame of an animation leaves uncovered is transparent, as in a GIF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from PIL.WebPImagePlugin import WebPImageFile

if TYPE_CHECKING:
    import io

__all__ = ["WebpFile"]

_ANIMATED: Final = 2  # of the flags in `VP8X`: WebP container specification, Extended File Format


class WebpFile(WebPImageFile):
    """A WebP. Of an animation that says it has no alpha, Pillow makes the uncovered part black."""

    def __init__(self, source: io.BytesIO) -> None:
        super().__init__(source)
        head = source.getvalue()[:21]
        if self.rawmode == "RGBX" and head[12:16] == b"VP8X" and head[20] & _ANIMATED:
            # The decoder's fourth byte is 0 where no frame was drawn.
            self.rawmode = self._mode = "RGBA"
