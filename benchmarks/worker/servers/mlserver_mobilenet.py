"""MLServer by a custom endpoint that takes the raw body, which its batching is not for."""

import asyncio
import json

from mlserver import MLModel
from mlserver.handlers import custom_handler
from saved_model import SavedModel, best, decode
from starlette.requests import Request
from starlette.responses import Response


class Classify(MLModel):
    async def load(self) -> bool:
        self.model = SavedModel()
        return True

    @custom_handler(rest_path="/classify")
    async def classify(self, request: Request) -> Response:
        pixels = await asyncio.to_thread(decode, await request.body())
        scores = await asyncio.to_thread(self.model.predict, pixels[None])
        return Response(json.dumps(best(scores[0])), media_type="application/json")
