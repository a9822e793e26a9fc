"""A bare aiohttp handler that reads the body: the least that any server on it does."""

import sys

from aiohttp import web


async def classify(request: web.Request) -> web.Response:
    body = await request.read()
    return web.json_response(len(body))


if __name__ == "__main__":
    app = web.Application(client_max_size=2**26)
    app.add_routes([web.post("/classify", classify), web.get("/", classify)])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
