"""Ray Serve with a model that does nothing: the raw request, as its HTTP guide shows."""

import sys
import time

from ray import serve
from starlette.requests import Request


@serve.deployment(max_ongoing_requests=32)
class Nothing:
    async def __call__(self, request: Request) -> int:
        return len(await request.body())


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Nothing.bind(), route_prefix="/classify")
    time.sleep(600)
