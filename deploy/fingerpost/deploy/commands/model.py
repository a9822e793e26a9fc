"""`fingerpost model`: show, check, sign, export, quantize and benchmark models on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from fingerpost.deploy import options
from fingerpost.deploy.commands.model_bench import bench
from fingerpost.deploy.commands.quantize import quantize
from fingerpost.deploy.console import err, out, print_json
from fingerpost.deploy.options.devices import load_config
from fingerpost.deploy.options.model import ModelOptions, takes_model_options

__all__ = ["add_to"]

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A model's folder or file, or a folder of versions.")
]


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    model = typer.Typer(
        name="model",
        help="Show, check, sign, export, quantize and benchmark models on disk.",
        no_args_is_help=True,
    )
    for command in (show, check, export, quantize, bench):
        model.command()(takes_model_options(command))
    model.command()(sign)
    app.add_typer(model)


def show(
    model: Model,
    *,
    model_options: ModelOptions,
) -> None:
    """Print how Fingerpost reads a model, as a complete model.toml.

    It includes what the model's own file says, and can be saved as the model's model.toml.
    """
    from fingerpost.worker.backends.base import completed
    from fingerpost.worker.models.manifest import InputSpec, encode_manifest
    from fingerpost.worker.tasks.loading import load_model

    files = model_options.find(model)
    backend = load_model(files, load_config("cpu"))
    files = completed(files, backend)
    found = backend.input
    batch = "any number of images" if found.batch is None else f"{found.batch} images"
    out.print(
        f"# {files.name}@{files.version}: {backend.framework}; takes {batch} of {found.dtype} at "
        f"once; {len(files.labels) or 'no'} labels",
    )
    shape = InputSpec(encoded=True)
    if not found.encoded:
        shape = InputSpec(
            height=found.height, width=found.width, channels=found.channels, layout=found.layout
        )
    manifest = msgspec.structs.replace(
        files.manifest,
        input=msgspec.structs.replace(shape, name=files.manifest.input.name),
        preprocessing=found.preprocessing,
    )
    for line in encode_manifest(manifest).rstrip().splitlines():
        out.print(line)


def check(
    model: Model,
    *,
    model_options: ModelOptions,
    device: options.Device = "auto",
    max_batch: Annotated[
        int, typer.Option(min=1, help="Largest batch to try, as of `fingerpost worker`.")
    ] = 32,
) -> None:
    """Load and run a model as a worker does before it serves; print OK, or what is wrong.

    Notes say what is probably wrong with a model that runs, and what to write: scores that are not
    probabilities, pixels that go in unscaled, or scaled twice, labels that are missing.
    """
    from fingerpost.worker.backends.base import completed
    from fingerpost.worker.engine.inference import warm_up
    from fingerpost.worker.models.manifest import MANIFEST
    from fingerpost.worker.tasks.backend import TaskBackend
    from fingerpost.worker.tasks.loading import load_model
    from fingerpost.worker.tools.findings import find_problems, manifest_lines
    from fingerpost.worker.training.report import described_accuracy
    from fingerpost.worker.worker import check_labels

    files = model_options.find(model)
    backend = load_model(files, load_config(device))
    files = completed(files, backend)
    most = min(max_batch, files.manifest.batch.max or max_batch)
    if isinstance(backend, TaskBackend):
        backend.warm_up_items(most, files.manifest.batch.sizes)
        out.print(
            f"OK: {files.name}@{files.version}, {backend.framework} on {backend.device}, "
            f"{files.manifest.task.value}; {backend.described()}",
        )
        return
    numbers = warm_up(backend, most)
    labels = check_labels(files, numbers)
    row = f"{len(labels)} classes" if labels else f"{files.manifest.task.value}, {numbers} numbers"
    out.print(
        f"OK: {files.name}@{files.version}, {backend.framework} on {backend.device}, "
        f"{row}, batches of 1 to {most}",
    )
    if accuracy := described_accuracy(files.folder / "report.json"):
        out.print(f"Its report.json: {accuracy}.")
    scaling_given = (model_options.input_mean, model_options.input_std) != (None, None)
    found = find_problems(files, backend, scaling_given=scaling_given)
    for each in found:
        out.print(f"Note: {each.message}.")
    if lines := manifest_lines(files, found):
        new = "a new " if files.inferred else ""
        out.print(f"Write into {new}{files.folder / MANIFEST}:")
        for line in lines:
            out.print(f"    {line}")


def export(
    model: Model,
    *,
    out_: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The new folder, such as models/flowers/4.")
    ],
    format_: Annotated[
        Literal["onnx"], typer.Option("--format", help="Format to export to.")
    ] = "onnx",
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Images to compare the answers for; by default generated ones."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Most images to compare the answers for.")] = 64,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest accepted difference between two scores.")
    ] = 0.001,
    json: options.Json = False,
    model_options: ModelOptions,
) -> None:
    """Export a TensorFlow or Keras model to ONNX, and compare the answers of both.

    Writes model.onnx, model.toml and labels.txt. If the answers differ by more than the tolerance,
    nothing is written, and the exit status is 1.
    """
    from fingerpost.worker.tools.export import export_onnx
    from fingerpost.worker.tools.sample_images import image_files, sample_images

    files = model_options.find(model)
    pictures = image_files(images, count) if images else sample_images(count)
    found = export_onnx(files, out_, pictures, tolerance=tolerance)
    written = found.difference <= tolerance
    if json:
        print_json({"out": str(out_) if written else None, "comparison": found})
    else:
        out.print(
            f"{'wrote' if written else 'not written:'} {out_}: the same best label for "
            f"{found.agreed} of {found.images} {'images' if images else 'generated images'}, "
            f"largest difference of a score {found.difference:.2g}",
        )
    if found.variety < 10 * tolerance:
        err.print(
            "the model gives nearly the same answer for all of these images, so the comparison "
            "says little: give images of its own kind with --images",
        )
    if not written:
        err.print(f"the tolerance is {tolerance:g}: raise --tolerance to export it anyway")
        raise typer.Exit(1)


def sign(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A version's folder, or a folder of versions.")
    ],
    *,
    key: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The private key (Ed25519), mode 0600."),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's name, if not its folder's.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(metavar="N", help="The version, if not the highest.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Sign all files of a version, for workers with --require-signature.

    The signature is the file model.sig in the version's folder. Sign what you have checked: it says
    that these files may run with the workers' rights.
    """
    from fingerpost.security.key_files import load_signing_key
    from fingerpost.worker.models.signature import sign_model

    path, manifest = sign_model(model, load_signing_key(key), name=name, version=version)
    if json:
        print_json({"signature": str(path), "digest": manifest.digest, "manifest": manifest})
        return
    out.print(
        f"wrote {path}: {manifest.model}@{manifest.version}, {len(manifest.files)} files, "
        f"{manifest.digest}",
    )
