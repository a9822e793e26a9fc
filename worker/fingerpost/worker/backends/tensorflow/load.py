"""Imports TensorFlow quickly, and without its banner."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, cast

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.import_order import load_triton_first
from fingerpost.worker.backends.needed import NEEDED
from fingerpost.worker.models.manifest import Framework

__all__ = ["import_tensorflow"]

_LOG_LEVEL: Final = "TF_CPP_MIN_LOG_LEVEL"
_KERAS: Final = "TF_USE_LEGACY_KERAS"


def import_tensorflow(*, keras: bool = False) -> Any:
    """Import TensorFlow, without Keras unless `keras` is true.

    `import tensorflow` imports Keras for its optimizers, and Keras what it can find (scikit-learn,
    matplotlib): 4.8 s instead of 2.3 s of start-up, measured with TensorFlow 2.21 on 2 cores.
    With the legacy Keras 2 requested, which is not installed, TensorFlow goes on without Keras.
    Triton's library, where it is installed, is loaded first: `import_order` says why.

    Raises:
        ConfigurationError: TensorFlow is not installed, or does not run on this machine.
    """
    load_triton_first()
    before = os.environ.get(_KERAS)
    if not keras:
        os.environ[_KERAS] = "1"
    try:
        with _without_banner():
            import tensorflow as tf
    except ImportError as error:
        raise ConfigurationError(
            f"TensorFlow cannot be imported ({error}): {NEEDED[Framework.TENSORFLOW].remedy}"
        ) from error
    finally:
        if before is None:
            os.environ.pop(_KERAS, None)
        else:
            os.environ[_KERAS] = before
    return tf


@contextlib.contextmanager
def _without_banner() -> Iterator[None]:
    """Suppress what TensorFlow's native code writes to standard error while it is imported.

    It writes there before its log level takes effect. Nothing is suppressed where
    `TF_CPP_MIN_LOG_LEVEL` is set: use that to see why a process dies during the import.
    """
    if _LOG_LEVEL in os.environ:
        yield
        return
    os.environ[_LOG_LEVEL] = "3"
    sys.stderr.flush()
    with _held() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            del os.environ[_LOG_LEVEL]  # TensorFlow has read it, and child processes decide anew


def _held() -> BinaryIO:
    """A file without a name, in memory where the system can: no disk needs to have room for it."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    return cast("BinaryIO", tempfile.TemporaryFile())
