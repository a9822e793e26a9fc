"""Looks at the HDF5 files of Keras before Keras does: `.h5` models, and the weights in a `.keras`.

HDF5 compresses the data in its own way, and leaves out what was never written: a file of 1.4 KB can
declare an array of 4 GB, which Keras makes before it compares the shapes. An array may also be
stored in another file, wherever that is; it must not be read into a model.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.archives import MAX_RATIO, MIN_LIMIT_BYTES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_weights", "read_configuration"]

_WEIGHTS_ONLY: Final = (
    "make the model with the code that trained it, call model.load_weights(FILE) and "
    'model.save("model.keras"), and serve that file'
)


def check_weights(path: Path) -> None:
    """Check the sizes that the weights in a `.keras` or `.h5` file declare, without reading them.

    Raises:
        ConfigurationError: over 20 times the file's size and 256 MB, or stored in other files.
        OSError, BadZipFile: the file is damaged.
    """
    if path.suffix != ".keras":
        _check(path, [path])
        return
    with zipfile.ZipFile(path) as archive:
        # As Keras does: h5py reads here and there, which an entry of an archive cannot.
        names = [each for each in archive.namelist() if each.endswith(".h5")]
        _check(path, (io.BytesIO(archive.read(name)) for name in names))


def read_configuration(path: Path) -> tuple[Any, str]:
    """The configuration of the model in a `.h5` file, and the version of Keras that wrote it.

    Raises:
        ConfigurationError: it has none: it holds weights only, or is not from Keras.
        OSError, ValueError: the file is damaged.
    """
    import h5py

    with h5py.File(path, "r") as file:
        text = file.attrs.get("model_config")
        version = file.attrs.get("keras_version", "")
        weights = "layer_names" in file.attrs or any(
            name in file for name in ("layers", "_layer_checkpoint_dependencies", "vars")
        )
    if text is None and weights:
        raise ConfigurationError(
            f"{path} holds only the weights of a Keras model, without the model itself: "
            f"{_WEIGHTS_ONLY}"
        )
    if text is None:
        raise ConfigurationError(f"{path} is an HDF5 file, but not a model of Keras")
    return json.loads(_text(text)), _text(version)


def _check(path: Path, files: Any) -> None:
    import h5py

    limit = max(MIN_LIMIT_BYTES, MAX_RATIO * path.stat().st_size)
    declared = 0
    for each in files:
        with h5py.File(each, "r") as opened:
            declared += _declared(h5py, path, opened)
    if declared > limit:
        raise ConfigurationError(
            f"the weights of {path} unfold to {declared:,} bytes, over the limit of {limit:,} "
            f"({MAX_RATIO} times its size): save the model without compression"
        )


def _declared(h5py: Any, path: Path, file: Any) -> int:
    """The bytes that all arrays of a file declare."""
    size, waiting, seen = 0, [file], set()
    while waiting:
        group = waiting.pop()
        for name in group:
            if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
                raise ConfigurationError(_outside(path, group, name))
            each = group.get(name)
            if isinstance(each, h5py.Dataset):
                if each.external or each.is_virtual:
                    raise ConfigurationError(_outside(path, group, name))
                size += each.nbytes
            elif isinstance(each, h5py.Group):
                address = h5py.h5o.get_info(each.id).addr
                if address not in seen:  # links may lead in a circle
                    seen.add(address)
                    waiting.append(each)
    return size


def _outside(path: Path, group: Any, name: str) -> str:
    return (
        f"{path} keeps {group.name.rstrip('/')}/{name} in another file: save the model into one "
        "file, with model.save()"
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
