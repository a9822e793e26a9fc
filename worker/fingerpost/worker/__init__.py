"""Models, batching, image decoding, serving and training.

`serve(model, name="flowers")` serves a Python object; `Worker` does so in a program that has an
event loop of its own. Importing this package imports neither of them, nor any framework.
"""

import importlib
from typing import TYPE_CHECKING, Final

from fingerpost.registry.version import __version__

if TYPE_CHECKING:
    from fingerpost.worker.backends.python_object import PythonModel
    from fingerpost.worker.config import (
        DrainConfig,
        ModelsConfig,
        RegistrationConfig,
        RequestConfig,
        StreamConfig,
        TelemetryConfig,
        WorkerConfig,
    )
    from fingerpost.worker.engine.batching.config import BatchingConfig
    from fingerpost.worker.images import ImageConfig
    from fingerpost.worker.serve_object import serve
    from fingerpost.worker.worker import Worker

__all__ = [
    "BatchingConfig",
    "DrainConfig",
    "ImageConfig",
    "ModelsConfig",
    "PythonModel",
    "RegistrationConfig",
    "RequestConfig",
    "StreamConfig",
    "TelemetryConfig",
    "Worker",
    "WorkerConfig",
    "__version__",
    "serve",
]

_MODULES: Final = {
    "BatchingConfig": "engine.batching.config",
    "ImageConfig": "images",
    "PythonModel": "backends.python_object",
    "Worker": "worker",
    "serve": "serve_object",
}


def __getattr__(name: str) -> object:
    # On first use (PEP 562): the worker itself brings NumPy, Pillow and aiohttp.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_MODULES.get(name, 'config')}")
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise ModuleNotFoundError(
            "fingerpost.worker needs NumPy: pip install 'fingerpost[python]'", name="numpy"
        ) from error
    return getattr(module, name)
