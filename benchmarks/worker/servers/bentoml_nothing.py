"""BentoML with a model that does nothing: the raw body as the root input."""

from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType


@bentoml.service(workers=1)
class Nothing:
    @bentoml.api(route="/classify")
    def classify(self, image: Annotated[Path, ContentType("image/jpeg")], /) -> int:
        return image.stat().st_size
