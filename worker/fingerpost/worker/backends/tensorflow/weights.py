"""Refuses `.keras` files whose HDF5 weights would unfold to far more than the file is.

HDF5 compresses the data in its own way, and leaves out what was never written: a file of 1.4 KB can
declare an array of 4 GB, which Keras makes before it compares the shapes.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.archives import MAX_RATIO, MIN_LIMIT_BYTES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_weights"]


def check_weights(path: Path) -> None:
    """Check the sizes that the weights in a `.keras` file declare, without reading them.

    Raises:
        ConfigurationError: over 20 times the file's size and 256 MB.
        OSError, BadZipFile: the file is damaged.
    """
    import h5py

    limit = max(MIN_LIMIT_BYTES, MAX_RATIO * path.stat().st_size)
    declared = 0

    def count(_: str, each: Any) -> None:
        nonlocal declared
        if isinstance(each, h5py.Dataset):
            declared += each.nbytes

    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(".h5"):
                # As Keras does: h5py reads here and there, which an entry of an archive cannot.
                with h5py.File(io.BytesIO(archive.read(entry)), "r") as weights:
                    weights.visititems(count)
    if declared > limit:
        raise ConfigurationError(
            f"the weights of {path} unfold to {declared:,} bytes, over the limit of {limit:,} "
            f"({MAX_RATIO} times its size): save the model without compression"
        )
