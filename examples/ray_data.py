"""Classify a folder of images with Ray Data: `python ray_data.py PROXY MODEL FOLDER`.

Needs `pip install 'fingerpost[ray]'`. Each of Ray's actors has a client of its own, which sends
the images of its batches straight to the workers of the cluster.
"""

from __future__ import annotations

import sys

import ray  # pyright: ignore[reportMissingImports]

from fingerpost.client import SyncClient
from fingerpost.client.adapters.batch import BatchMapper


def main(proxy: str, model: str, folder: str) -> None:
    """Print the path, and the label or the error, of each image."""
    images = ray.data.read_binary_files(folder, include_paths=True)
    mapped = images.map_batches(
        BatchMapper,
        fn_constructor_kwargs={"client": SyncClient(proxy), "model": model, "column": "bytes"},
        batch_size=256,
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=0.25,  # an actor mostly waits; by default it takes a core from those that read
    )
    for row in mapped.iter_rows():
        print(row["path"], row["label"] or row["error"])


if __name__ == "__main__":
    main(*sys.argv[1:])
