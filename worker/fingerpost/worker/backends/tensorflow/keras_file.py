"""Reads a Keras model from its file, and says what to do about one that cannot be read."""

from __future__ import annotations

import json
import re
import zipfile
from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.reasons import reason
from fingerpost.worker.backends.tensorflow.hdf5 import check_weights, read_configuration
from fingerpost.worker.backends.tensorflow.keras_2 import adapted, objects_in

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_keras"]

_EXPORT: Final = (
    'in the program that made the model, write a SavedModel with model.export("FOLDER"), and serve '
    "that folder"
)
_CODE: Final = (
    f"the file holds Python code (a Lambda layer), which is not run from there: {_EXPORT}"
)
_KERAS_2: Final = (
    "the model is one of Keras 2: pip install tf_keras, make a SavedModel of it with python -c "
    "\"import tf_keras; tf_keras.models.load_model('{path}', compile=False).export('FOLDER')\", "
    "and serve that folder"
)
# What to do about an error; the first that matches.
_REMEDIES: Final = (
    (r"TFOpLambda|SlicingOpLambda", _KERAS_2),
    (
        r"\bLambda\b|\blambda\b|unsafe deserialization",
        _CODE,
    ),
    (
        r"Could not locate (class|function)|Unknown (layer|object)",
        "the model has layers or functions of its own, which are not in the file: " + _EXPORT,
    ),
    (
        r"but received 0 variables|was never built|has not yet created|not created its variables",
        "the model was saved before it was built: call it on a batch of images, and save it again",
    ),
)


def read_keras(path: Path) -> Any:
    """The Keras model in a `.keras` or `.h5` file, not compiled.

    Raises:
        ConfigurationError: it cannot be read. The message has Keras' own reasons and the remedy.
    """
    import keras

    written = ""
    try:
        check_weights(path)
        if path.suffix == ".keras":
            written = _version(path)
        else:
            configuration, written = read_configuration(path)
            _check_code(path, configuration)
            if not written.startswith("3."):
                return _read_keras_2(keras, path, configuration)
        return keras.saving.load_model(path, compile=False)
    except ConfigurationError:
        raise
    except Exception as error:  # of many kinds
        text = reason(error)
        raise ConfigurationError(
            f"Keras model {path} cannot be loaded: {text}; {_remedy(keras, path, text, written)}"
        ) from error


def _read_keras_2(keras: Any, path: Path, configuration: Any) -> Any:
    configuration = adapted(keras, configuration)
    kind = keras.Sequential if configuration["class_name"] == "Sequential" else keras.Model
    model = kind.from_config(configuration["config"])
    model.load_weights(path)
    return model


def _remedy(keras: Any, path: Path, text: str, written: str) -> str:
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, text):
            return remedy.format(path=path)
    if path.suffix != ".keras" and not written.startswith("3."):
        return _KERAS_2.format(path=path)
    if not written:
        return "check that the file is complete"
    return f"it was written by Keras {written}, and this is Keras {keras.__version__}: {_EXPORT}"


def _version(path: Path) -> str:
    """The version of Keras that wrote a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        return str(json.loads(archive.read("metadata.json")).get("keras_version", ""))


def _check_code(path: Path, configuration: Any) -> None:
    """Refuse the code that Lambda layers hold; older releases of Keras 3 run it."""
    for each in objects_in(configuration):
        if each["class_name"] in ("Lambda", "__lambda__"):
            raise ConfigurationError(f"Keras model {path} has a Lambda layer: {_CODE}")
