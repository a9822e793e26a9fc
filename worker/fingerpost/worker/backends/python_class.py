"""Any Python class as a model: `class = "package.module:Class"` in `model.toml`."""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.import_order import load_triton_first
from fingerpost.worker.backends.python_object import call_load, load_object
from fingerpost.worker.backends.raised import is_the_models, type_and_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from fingerpost.worker.backends.base import LoadConfig
    from fingerpost.worker.backends.python_object import PythonBackend
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["construct", "load"]

T = TypeVar("T")

_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)
_importing: Final = threading.Lock()
# Top-level names of modules that came from models' folders.
_own_modules: Final[set[str]] = set()


def load(files: ModelFiles, config: LoadConfig) -> PythonBackend:
    """Import the class, construct it, and wrap the object.

    The module is looked up in the model's folder first, then among what is installed. The folder
    can be imported from until the constructor and the object's own `load()` return, not afterwards.
    If the constructor takes an argument, it gets the model's folder, a `Path`; where it has a
    parameter `device` also what the worker was started with: `auto`, `cpu` or `cuda:N`. What the
    object may have is in `PythonModel`.

    Raises:
        ConfigurationError: the import or the constructor raises, or the object cannot be served.
    """
    return _made(files, config, lambda found: load_object(found, files))


def construct(files: ModelFiles, config: LoadConfig) -> Any:
    """The object of a model's class, after its own `load()`; see `load`."""

    def finish(found: Any) -> Any:
        call_load(found, files)
        return found

    return _made(files, config, finish)


def _made(files: ModelFiles, config: LoadConfig, finish: Callable[[Any], T]) -> T:
    load_triton_first()  # the class may import TensorFlow
    target = files.manifest.python_class or ""
    try:
        with _importing:
            return _loaded(target, files, config, finish)
    except ConfigurationError:
        raise
    except BaseException as error:
        if not is_the_models(error):
            raise
        raise ConfigurationError(
            f"model {files.name}: class {target!r} cannot be loaded: {type_and_text(error)}"
        ) from error


def _loaded(target: str, files: ModelFiles, config: LoadConfig, finish: Callable[[Any], T]) -> T:
    folder = files.folder.resolve()
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
        found = getattr(module, class_name)
        if inspect.isclass(found) or not hasattr(found, "predict"):
            found = _constructed(found, target, folder, config)
        return finish(found)
    finally:
        sys.dont_write_bytecode = bytecode
        sys.path = [place for place in sys.path if place != str(folder)]
        _own_modules.update(
            name.partition(".")[0]
            for name in set(sys.modules) - before
            if _lies_in(sys.modules[name], folder)
        )


def _constructed(constructor: Any, target: str, folder: Path, config: LoadConfig) -> Any:
    parameters = inspect.signature(constructor).parameters
    named: dict[str, Any] = {"device": config.device} if "device" in parameters else {}
    taken = [each for each in parameters.values() if each.kind in _POSITIONAL]
    first = next((each for each in taken if each.name != "device"), None)
    first = parameters.get("folder", first)
    if first is None or not _may_be_a_folder(first):
        return _call(constructor, target, named)
    if first.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL):
        return _call(constructor, target, named, folder)
    return _call(constructor, target, {**named, first.name: folder})


def _may_be_a_folder(parameter: inspect.Parameter) -> bool:
    """Whether a parameter means the model's folder, whatever its name: by its default."""
    default = parameter.default
    return default is inspect.Parameter.empty or default is None or isinstance(default, str | Path)


def _call(constructor: Any, target: str, named: dict[str, Any], *folder: Path) -> Any:
    try:
        inspect.signature(constructor).bind(*folder, **named)
    except TypeError as error:
        raise ConfigurationError(
            f"class {target!r}: its constructor is given the model's folder, and `device` where it "
            f"has that parameter ({error}): give all other parameters a default"
        ) from error
    return constructor(*folder, **named)


def _lies_in(module: Any, folder: Path) -> bool:
    """Whether a module comes from that folder; a namespace package has only a path."""
    places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
    return any(place and Path(place).is_relative_to(folder) for place in places)
