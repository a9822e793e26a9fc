"""BentoML: one service, its requests in threads; batching would take a second one to decode in."""

from pathlib import Path
from typing import Annotated

import bentoml
import numpy as np
from bentoml.validators import ContentType
from saved_model import SavedModel, best, decode


@bentoml.service(workers=1, threads=4)
class Classify:
    def __init__(self) -> None:
        self.model = SavedModel()

    @bentoml.api(route="/classify")
    def classify(self, image: Annotated[Path, ContentType("image/jpeg")], /) -> list:
        pixels = decode(image.read_bytes())
        return best(self.model.predict(pixels[np.newaxis])[0])
