# pyright: reportMissingImports=false
"""The same with mosec: the image as the body, JSON out."""

import io

from mosec import Server, ValidationError, Worker
from PIL import Image, UnidentifiedImageError


class Colours(Worker):
    def deserialize(self, data):
        try:
            return Image.open(io.BytesIO(data)).convert("RGB")
        except UnidentifiedImageError as error:
            raise ValidationError(str(error)) from error

    def forward(self, data):
        red, green, blue = data.resize((1, 1)).tobytes()
        total = (red + green + blue) or 1
        return {"red": red / total, "green": green / total, "blue": blue / total}


if __name__ == "__main__":
    server = Server()
    server.append_worker(Colours, num=1)
    server.run()
