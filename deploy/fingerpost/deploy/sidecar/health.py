"""Whether the server beside a sidecar answers: its check, and a real image."""

from __future__ import annotations

import asyncio
import io
import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import aiohttp

from fingerpost.errors import FingerpostError, ImageError
from fingerpost.registry.instance import SCHEME_KEY, format_address

if TYPE_CHECKING:
    from fingerpost.client import ClientConfig, Result, TaskResult
    from fingerpost.deploy.sidecar.config import SidecarConfig
    from fingerpost.deploy.sidecar.server_process import ServerProcess

__all__ = ["HealthCheck", "first_image", "first_image_config"]

logger = logging.getLogger(__name__)

_EVERY_S: Final = 1.0
# As of Consul's check; the first answers of a server that loads its model take longer.
_TIMEOUT_S: Final = 0.5
_START_EVERY_S: Final = 0.2
_IMAGE_S: Final = 60.0
_SIDE: Final = 224


class HealthCheck:
    """Asks the server as the registry would, every second, and logs changes.

    Attributes:
        healthy: whether the last check passed.
    """

    def __init__(self, config: SidecarConfig) -> None:
        self._config = config
        self.healthy = True

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            problem = await self.problem()
            if bool(problem) == self.healthy:
                self.healthy = not problem
                if problem:
                    logger.warning("%s is not healthy: %s", self._config.service, problem)
                else:
                    logger.info("%s is healthy again", self._config.service)

    async def problem(self) -> str:
        """Why the server is not healthy; empty if it is."""
        host, port, path = self._config.host, self._config.port, self._config.check_path
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                if not path:
                    _, writer = await asyncio.open_connection(host, port)
                    writer.close()
                    return ""
                scheme = self._config.meta.get(SCHEME_KEY, "http")
                url = f"{scheme}://{format_address(host, port)}{path}"
                # Its certificate is for its clients to check.
                asked = aiohttp.request("GET", url, allow_redirects=False, ssl=False)
                async with asked as response:
                    fine = 200 <= response.status < 300
                    return "" if fine else f"HTTP {response.status} at {path}"
        except (TimeoutError, OSError, aiohttp.ClientError, ValueError) as error:
            return str(error) or f"no answer within {_TIMEOUT_S:g} s"

    async def until_ready(self, server: ServerProcess) -> None:
        """Return once the check passes and a real image was answered.

        Raises:
            FingerpostError: the server ended, or its answers cannot be used.
        """
        said = ""
        while problem := await self.problem():
            if server.problem:
                raise FingerpostError(f"{server.problem} before it answered: see its output")
            if problem != said:
                logger.info("waiting for %s: %s", self._config.service, problem)
                said = problem
            await asyncio.sleep(_START_EVERY_S)
        if self._config.asks_image:
            await self._ask_image()

    async def _ask_image(self) -> None:
        from fingerpost.client import Client

        config = self._config
        image = await asyncio.to_thread(_image, config)
        query = urlencode({"model": config.service, **config.meta, "protocol": config.protocol})
        at = f"static://{format_address(config.host, config.port)}?{query}"
        async with Client(at, config=first_image_config()) as client:
            try:
                # A server of another task says so in its metadata.
                ask = client.infer if "task" in config.meta else client.classify
                result = await ask(image, config.service)
            except FingerpostError as error:
                raise FingerpostError(
                    f"{config.service} does not answer an image: {error}; say how it is asked "
                    "(--protocol, --meta), or leave the image out (--no-image)"
                ) from error
        logger.info(
            "%s answers an image: %s, %.0f ms",
            *(config.service, _summary(result), result.elapsed_s * 1000),
        )


def first_image_config() -> ClientConfig:
    """The settings for the first image, on which a server may wait until its model is loaded.

    TorchServe passes its check before that, and takes more than 20 s to import torch from a cold
    disk: with `response_timeout_s` of other images it was given up twice, and then for good.
    """
    from fingerpost.client import ClientConfig

    return ClientConfig(timeout_s=_IMAGE_S, response_timeout_s=_IMAGE_S)


def _summary(result: Result | TaskResult) -> str:
    """The best label of a classification, and what kind of answer any other is."""
    label, score = getattr(result, "label", None), getattr(result, "score", None)
    return type(result).__name__ if label is None else f"{label} {score:.3f}"


def _image(config: SidecarConfig) -> bytes:
    if config.image is None:
        return first_image()
    try:
        return config.image.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {str(config.image)!r}: {error.strerror}") from error


def first_image() -> bytes:
    """A JPEG of 224 x 224 pixels with all brightnesses."""
    from PIL import Image

    out = io.BytesIO()
    Image.radial_gradient("L").resize((_SIDE, _SIDE)).convert("RGB").save(out, "JPEG")
    return out.getvalue()
