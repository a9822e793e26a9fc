"""Ray Serve with dynamic batching (its documentation: `serve.batch`), decoding in threads."""

import asyncio
import sys
import time
from typing import Any

import numpy as np
from ray import serve
from saved_model import SavedModel, best, decode
from starlette.requests import Request


@serve.deployment(max_ongoing_requests=32)
class Classify:
    def __init__(self) -> None:
        self.model = SavedModel()

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.01)
    async def predict(self, images: list[Any]) -> list[Any]:
        return list(await asyncio.to_thread(self.model.predict, np.stack(images)))

    async def __call__(self, request: Request) -> Any:
        if request.method == "GET":
            return "ready"
        pixels = await asyncio.to_thread(decode, await request.body())
        return best(await self.predict(pixels))


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Classify.bind(), route_prefix="/classify")
    time.sleep(600)
