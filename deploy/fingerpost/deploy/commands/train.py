"""`fingerpost train`: train a classifier on a folder of class folders."""

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
        typer.Option(metavar="imagenet|PATH|none", help="Initial weights of the backbone."),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels on each side; by default the backbone's own size.")
    ] = None,
    epochs: Annotated[
        int, typer.Option(help="Most passes over the images; few images are passed more often.")
    ] = 40,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Adam's step size.")] = 0.001,
    validation_split: Annotated[
        float, typer.Option(help="Share of each class that is kept for validation.")
    ] = 0.15,
    patience: Annotated[
        int, typer.Option(help="Epochs without progress before training stops early.")
    ] = 6,
    fine_tune: Annotated[
        bool,
        typer.Option("--fine-tune", help="Afterwards train the backbone too, with small steps."),
    ] = False,
    augment: Annotated[
        bool, typer.Option(help="Rotate, zoom and shift the images at random.")
    ] = True,
    flip: Annotated[
        bool, typer.Option("--flip", help="Mirror the images too; not for digits.")
    ] = False,
    seed: Annotated[
        int, typer.Option(help="Seed of the split, the weights and the augmentation.")
    ] = 0,
    json: options.Json = False,
) -> None:
    """Train a classifier on a folder with one folder of images for each class.

    Writes a new version of the model: a SavedModel, model.toml, labels.txt, report.json and
    confusion.png. Images that cannot be read are named and skipped.
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
        err.print(f"skipped {skipped.path}: {skipped.reason}")
    if json:
        print_json(
            {
                "folder": str(result.folder),
                "accuracy": result.accuracy,
                "accuracy_of_guessing": result.guessing,
                "learned": result.learned,
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
    advice = (
        f"serve it: fingerpost up --model {out_}"
        if result.learned
        else "this is no better than guessing: always giving the most frequent label is right for "
        f"{result.guessing:.1%}. Do not serve it; give more images of each class, or try "
        "--backbone, --learning-rate or --seed"
    )
    out.print(
        f"{result.folder}: {result.accuracy:.1%} of {result.validation_images} validation images "
        f"right, trained on {result.training_images} in {result.seconds:.0f} s"
    )
    out.print(advice)
