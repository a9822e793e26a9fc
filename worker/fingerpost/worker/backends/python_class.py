"""Any Python class as a model: `class = "package.module:Class"` in `model.toml`."""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.import_order import load_triton_first
from fingerpost.worker.backends.python_object import wrap_object
from fingerpost.worker.backends.raised import is_the_models, type_and_text

if TYPE_CHECKING:
    from fingerpost.worker.backends.base import LoadConfig
    from fingerpost.worker.backends.python_object import PythonBackend
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["load"]

_importing: Final = threading.Lock()
# Top-level names of modules that came from models' folders.
_own_modules: Final[set[str]] = set()


def load(files: ModelFiles, config: LoadConfig) -> PythonBackend:
    """Import the class, construct it, and wrap the object.

    The module is looked up in the model's folder first, then among what is installed. The folder
    can be imported from until the constructor returns, not afterwards. The constructor gets the
    model's folder, a `Path`, and where it has a parameter `device` also what the worker was started
    with: `auto`, `cpu` or `cuda:N`. What the object may have is in `PythonModel`.

    Raises:
        ConfigurationError: the import or the constructor raises, or the object cannot be served.
    """
    load_triton_first()  # the class may import TensorFlow
    target = files.manifest.python_class or ""
    try:
        with _importing:
            model = _construct(target, files.folder.resolve(), config)
    except ConfigurationError:
        raise
    except BaseException as error:
        if not is_the_models(error):
            raise
        raise ConfigurationError(
            f"model {files.name}: class {target!r} cannot be loaded: {type_and_text(error)}"
        ) from error
    return wrap_object(model, files)


def _construct(target: str, folder: Path, config: LoadConfig) -> Any:
    module_name, _, class_name = target.partition(":")
    top = module_name.partition(".")[0]
    if not module_name or not class_name.isidentifier():
        raise ConfigurationError(
            f"class is {target!r} in model.toml: it must be 'package.module:Class'"
        )
    # Another version has modules of the same names; its classes keep theirs.
    for name in [name for name in sys.modules if name.partition(".")[0] in _own_modules]:
        del sys.modules[name]
    before = set(sys.modules)
    importlib.invalidate_caches()
    # A new list each time: other threads may be walking the one there is.
    sys.path = [str(folder), *sys.path]
    # Nothing is written into a folder that is served, and perhaps watched for changes.
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        module = importlib.import_module(module_name)
        own = (folder / f"{top}.py").is_file() or (folder / top).is_dir()
        if own and not _lies_in(module, folder):
            raise ConfigurationError(
                f"class {target!r}: Python has another module {top!r} loaded already "
                f"({module.__file__}): rename the model's"
            )
        constructor = getattr(module, class_name)
        takes_device = "device" in inspect.signature(constructor).parameters
        return constructor(folder, **({"device": config.device} if takes_device else {}))
    finally:
        sys.dont_write_bytecode = bytecode
        sys.path = [place for place in sys.path if place != str(folder)]
        _own_modules.update(
            name.partition(".")[0]
            for name in set(sys.modules) - before
            if _lies_in(sys.modules[name], folder)
        )


def _lies_in(module: Any, folder: Path) -> bool:
    """Whether a module comes from that folder; a namespace package has only a path."""
    places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
    return any(place and Path(place).is_relative_to(folder) for place in places)
