"""Classify a folder of images with Dask: `python dask_bag.py PROXY MODEL FOLDER`.

Needs `pip install 'fingerpost[dask]'`. Each of Dask's processes sends its partitions straight to
the workers of the cluster, many images at a time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import dask.bag

from fingerpost.client import SyncClient
from fingerpost.client.adapters.batch import BatchMapper


def main(proxy: str, model: str, folder: str) -> None:
    """Print the path, and the label or the error, of each image."""
    mapper = BatchMapper(SyncClient(proxy), model, column="path")
    paths = dask.bag.from_sequence(Path(folder).rglob("*.png"), partition_size=1000)
    rows = paths.map_partitions(mapper)
    for row in rows.compute(scheduler="processes"):
        print(row["path"], row["label"] or row["error"])


if __name__ == "__main__":
    main(*sys.argv[1:])
