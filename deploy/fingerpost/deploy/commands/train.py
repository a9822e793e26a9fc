"""`fingerpost train`: a classifier from a folder of class folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fingerpost.deploy import options
from fingerpost.deploy.console import err, out, print_json

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(train)


def train(
    images: Annotated[
        Path, typer.Option(metavar="DIR", help="A folder with one folder of images per class.")
    ],
    out_: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="The model's folder, such as models/flowers."),
    ],
    backbone: Annotated[
        str,
        typer.Option(help="A Keras application, or 'small' for a small network from scratch."),
    ] = "MobileNetV2",
    weights: Annotated[
        str | None,
        typer.Option(metavar="imagenet|PATH|none", help="What the backbone starts from."),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels a side; by default what the backbone is made for.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Most passes over the images.")] = 40,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Adam's step size.")] = 0.001,
    validation_split: Annotated[
        float, typer.Option(help="Share of each class kept back to measure with.")
    ] = 0.15,
    patience: Annotated[
        int, typer.Option(help="Epochs without progress before it stops early.")
    ] = 6,
    fine_tune: Annotated[
        bool, typer.Option("--fine-tune", help="Afterwards train the backbone too, slowly.")
    ] = False,
    augment: Annotated[
        bool, typer.Option(help="Turn, zoom and shift the images at random.")
    ] = True,
    flip: Annotated[bool, typer.Option("--flip", help="Mirror them too; not for digits.")] = False,
    seed: Annotated[int, typer.Option(help="Of the split, the weights and the chance.")] = 0,
    json: options.Json = False,
) -> None:
    """Train on a folder of class folders, such as flower_photos.

    Writes a new numbered version: a SavedModel, model.toml, labels.txt, report.json and
    confusion.png.
    Images that cannot be read are named and skipped.
    """
    from fingerpost.worker.training import (
        AugmentationConfig,
        FitConfig,
        NetworkConfig,
        RichProgress,
        TrainConfig,
    )
    from fingerpost.worker.training import train as run

    config = TrainConfig(
        images=images,
        out=out_,
        network=NetworkConfig(backbone=backbone, weights=weights, image_size=image_size),
        fit=FitConfig(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            patience=patience,
            fine_tune=fine_tune,
        ),
        augmentation=AugmentationConfig(augment=augment, flip=flip),
        validation_split=validation_split,
        seed=seed,
    )
    with RichProgress(err) as progress:
        result = run(config, progress)
    for skipped in result.skipped:
        err.print(f"skipped {skipped.path}: {skipped.reason}", markup=False)
    if json:
        print_json(
            {
                "folder": str(result.folder),
                "accuracy": result.accuracy,
                "labels": result.labels,
                "image_size": result.image_size,
                "training_images": result.training_images,
                "validation_images": result.validation_images,
                "skipped": [
                    {"path": str(each.path), "reason": each.reason} for each in result.skipped
                ],
                "seconds": result.seconds,
            }
        )
        return
    out.print(
        f"{result.folder}: {result.accuracy:.1%} of {result.validation_images} validation images "
        f"right, trained on {result.training_images} in {result.seconds:.0f} s\n"
        f"serve it: fingerpost up --model {out_}",
        markup=False,
    )
