"""GIF: what its first frame leaves uncovered is transparent, as browsers show it."""

from __future__ import annotations

from PIL import Image
from PIL.GifImagePlugin import GifImageFile

__all__ = ["GifFile"]


class GifFile(GifImageFile):
    """A GIF of which only the first frame is read. Pillow fills the rest with the first colour."""

    def finished(self) -> Image.Image:
        """The decoded canvas, RGBA where the frame does not cover it."""
        box = self.tile[0].extents if self.tile else None
        self.load()
        if box is None or box == (0, 0, *self.size):
            return self
        canvas = Image.new("RGBA", self.size, (255, 255, 255, 0))
        canvas.paste(self.crop(box).convert("RGBA"), box)
        return canvas
