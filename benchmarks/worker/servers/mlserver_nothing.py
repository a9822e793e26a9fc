"""MLServer with a model that does nothing, by a custom endpoint that takes the raw body."""

from mlserver import MLModel
from mlserver.handlers import custom_handler
from starlette.requests import Request
from starlette.responses import Response


class Nothing(MLModel):
    async def load(self) -> bool:
        return True

    @custom_handler(rest_path="/classify")
    async def classify(self, request: Request) -> Response:
        return Response(str(len(await request.body())), media_type="application/json")
