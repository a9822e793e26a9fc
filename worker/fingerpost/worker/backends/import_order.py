"""The order in which TensorFlow's and triton's native libraries are loaded into a process.

Both contain an LLVM of their own and export its symbols. TensorFlow's wheels since 2.20 load it
with `RTLD_GLOBAL`, so that libraries loaded later use it instead of their own LLVM: triton 3.7,
which PyTorch's default build for Linux brings, dies of it with a segmentation fault
(tensorflow/tensorflow#124205). Once it is loaded, a library keeps the symbols that it found.
docs/decisions/0018-frameworks-in-one-process.md has the measurements, and what was rejected.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import sys
import threading
from pathlib import Path
from typing import Final

from fingerpost.errors import ConfigurationError

__all__ = ["check_triton", "load_triton_first"]

# What TensorFlow's wheels import to load their libraries with RTLD_GLOBAL. Those that have no such
# module do no harm.
_TENSORFLOW_IS_GLOBAL: Final = "tensorflow.python.pywrap_dlopen_global_flags"
_TRITON: Final = "triton._C.libtriton"

_lock: Final = threading.Lock()
_loaded: Final[list[ctypes.CDLL]] = []


def load_triton_first() -> None:
    """Load triton's library where TensorFlow and triton are installed, before TensorFlow's.

    Call it before code that may import TensorFlow; nothing happens where either is loaded already.
    It takes 0.04 s of processor time and 70 MB of file pages, which processes share (triton 3.7.1),
    and under 1 ms where one of the two is not installed. `import triton` later uses what is loaded.
    """
    with _lock:
        if _triton_is_loaded() or _TENSORFLOW_IS_GLOBAL in sys.modules or not _places("tensorflow"):
            return
        # Where it cannot be loaded now, it cannot be later.
        with contextlib.suppress(OSError):
            _loaded.extend(ctypes.CDLL(str(path)) for path in _libraries())


def check_triton() -> None:
    """Call it before code that imports triton, which `torch.export.load` does.

    Raises:
        ConfigurationError: the import would end the process, as TensorFlow was imported before, and
            not by Fingerpost.
    """
    if _TENSORFLOW_IS_GLOBAL in sys.modules and not _triton_is_loaded() and _libraries():
        raise ConfigurationError(
            "TensorFlow was imported before triton, which PyTorch imports to load an exported "
            "program: that would end in a segmentation fault. Write `import triton` before the "
            "program's `import tensorflow`"
        )


def _triton_is_loaded() -> bool:
    return bool(_loaded) or _TRITON in sys.modules


def _libraries() -> list[Path]:
    """Triton's library, found without importing triton, which takes five times as long."""
    return [path for place in _places("triton") for path in Path(place, "_C").glob("libtriton*.so")]


def _places(package: str) -> list[str]:
    """The folders of an installed package, which is not imported."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # ValueError: a module that was made by hand
        return []
    return list((spec and spec.submodule_search_locations) or ())
