"""`fingerpost infer`: ask a model of any task about images, with a cluster or without."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from fingerpost.client.tasks.results import (
    Classification,
    Detection,
    Embedding,
    JsonAnswer,
    Multilabel,
    Regression,
    Segmentation,
    TaskResult,
    Tensors,
)
from fingerpost.deploy import options
from fingerpost.deploy.console import err, out, print_json
from fingerpost.deploy.file_names import name_to_json
from fingerpost.deploy.named_inputs import read_inputs
from fingerpost.deploy.options.cluster import ClusterTarget, takes_cluster_options
from fingerpost.deploy.setting_names import with_options
from fingerpost.deploy.whole_run import OF_ALL_IMAGES, check_model
from fingerpost.errors import ConfigurationError, FingerpostError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fingerpost.client import Client

__all__ = ["add_to"]

# Images in flight; they are printed in their order.
_AT_ONCE = 16
_SHOWN = 4


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(takes_cluster_options(infer))


def infer(
    *,
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGE]...", help="Image files.")
    ] = None,
    model: Annotated[str, typer.Option(metavar="NAME", help="The name of a cluster's model.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=FILE",
            help="An input of one item of a model of several, instead of images; repeat it for "
            "each. NAME=NUMBERS gives numbers: 0.5, or lists as JSON, also in a file .json.",
        ),
    ] = None,
    top: Annotated[
        int, typer.Option(min=1, help="Most labels, of a classification or multilabel model.")
    ] = 5,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write each image with its boxes, or its mask, as a new PNG into this folder.",
        ),
    ] = None,
    json: options.Json = False,
    relay: options.Relay = False,
    priority: options.Priority = None,
    deadline: options.Deadline = 30.0,
    wait_for_ready: options.WaitForReady = 5.0,
    cluster: ClusterTarget,
) -> None:
    """Ask a model of any task about image files: boxes, masks, vectors, numbers or labels.

    A model of several inputs gets one item: --input left=a.jpg --input right=b.jpg.

    Without --proxy, --registry or --consul, the proxy on this machine is asked. The exit status is
    1 if an image failed.
    """
    from fingerpost.client import ClientConfig

    named = read_inputs(inputs or ())
    if bool(images) == bool(named):
        raise ConfigurationError(
            "give image files, or each input of one item by its name (--input NAME=FILE)"
        )
    if named and save is not None:
        raise ConfigurationError("--save goes with image files, not with --input")
    images = images or []
    targets = {} if save is None else _targets(images, save)
    config = ClientConfig(timeout_s=deadline, wait_for_ready_s=wait_for_ready)
    client = cluster.client(config, relay=relay, priority=priority)
    if named:
        failed = asyncio.run(_infer_item(client, named, model, top, json=json))
    else:
        failed = asyncio.run(_infer(client, images, model, top, targets, json=json))
    if failed:
        raise typer.Exit(1)


async def _infer(
    client: Client,
    images: list[Path],
    model: str,
    top: int,
    targets: Mapping[Path, Path],
    *,
    json: bool,
) -> int:
    failed = 0
    async with client:
        await check_model(client, model)
        for start in range(0, len(images), _AT_ONCE):
            part = images[start : start + _AT_ONCE]
            answers = await asyncio.gather(
                *(client.infer(image, model, top=top) for image in part), return_exceptions=True
            )
            for image, answer in zip(part, answers, strict=True):
                if isinstance(answer, OF_ALL_IMAGES):
                    raise answer
                if isinstance(answer, FingerpostError):
                    failed += 1
                    _show_error(image, answer, json=json)
                elif isinstance(answer, BaseException):
                    raise answer
                else:
                    _show(image, answer, json=json)
                    if image in targets:
                        _save(image, answer, targets[image])
    return failed


async def _infer_item(
    client: Client, named: Mapping[str, Any], model: str, top: int, *, json: bool
) -> int:
    """Ask about one item of several inputs; 1 if it failed."""
    what = " ".join(named)
    async with client:
        await check_model(client, model)
        try:
            answer = await client.infer(named, model, top=top)
        except OF_ALL_IMAGES:
            raise
        except FingerpostError as error:
            _show_error(what, error, json=json, field="inputs")
            return 1
    _show(what, answer, json=json, field="inputs")
    return 0


def _show_error(
    what: Path | str, error: FingerpostError, *, json: bool, field: str = "image"
) -> None:
    message = with_options(error)
    if field == "image" and isinstance(error, InvalidRequest):
        message += " (several inputs of one item: --input NAME=FILE for each)"
    if json:
        body = {"code": error.code, "message": message}
        print_json({**name_to_json(str(what), field), "error": body})
    else:
        err.print(f"{what}: {message}")


def _show(what: Path | str, answer: TaskResult, *, json: bool, field: str = "image") -> None:
    if json:
        members = {"task": type(answer).__name__.lower().removesuffix("answer"), **_members(answer)}
        print_json({**name_to_json(str(what), field), **members})
    else:
        out.print(f"{what}: {_text(answer)}")
        sys.stdout.flush()


def _members(answer: TaskResult) -> dict[str, Any]:
    """The answer as JSON: arrays as lists, and a mask as base64."""
    members: dict[str, Any] = {}
    for name in answer.__struct_fields__:
        value = getattr(answer, name)
        if isinstance(value, dict):
            value = {key: _plain(each) for key, each in value.items()}
        members[name] = _plain(value)
    return members


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else msgspec.to_builtins(value)


def _text(answer: TaskResult) -> str:
    match answer:
        case Classification() | Multilabel():
            return "  ".join(f"{label} {score:.1%}" for label, score in answer.predictions)
        case Detection():
            return "  ".join(
                f"{each.label} {each.score:.1%} "
                f"({each.left:.0f}, {each.top:.0f}, {each.right:.0f}, {each.bottom:.0f})"
                for each in answer
            )
        case Regression():
            names = answer.labels or [str(number) for number in range(len(answer.values))]
            pairs = zip(names, answer.values, strict=True)
            return "  ".join(f"{name} {value:.6g}" for name, value in pairs)
        case Embedding():
            return _numbers(answer.vector)
        case Segmentation():
            return f"{answer.width} x {answer.height}: {', '.join(answer.labels)}"
        case Tensors():
            return "  ".join(f"{name} {_shape(each)}" for name, each in answer.outputs.items())
        case JsonAnswer():
            return msgspec.json.encode(answer.value).decode()
    return repr(answer)


def _numbers(vector: Any) -> str:
    more = f" ... ({len(vector)} numbers)" if len(vector) > _SHOWN else ""
    return " ".join(f"{each:.6g}" for each in vector[:_SHOWN]) + more


def _shape(array: Any) -> str:
    return str(list(array.shape)) if hasattr(array, "shape") else "list"


def _targets(images: list[Path], folder: Path) -> dict[Path, Path]:
    """The file that is written for each image.

    Images of one name in several folders get numbers.

    Raises:
        ConfigurationError: a file of that name is there, which may be the image itself.
    """
    targets: dict[Path, Path] = {}
    for image in images:
        if image in targets:
            continue
        target, number = folder / f"{image.stem}.png", 1
        while target in targets.values():
            number += 1
            target = folder / f"{image.stem}-{number}.png"
        if os.path.lexists(target):
            raise ConfigurationError(
                f"--save would write over {target}: name another folder, or remove that file"
            )
        targets[image] = target
    folder.mkdir(parents=True, exist_ok=True)
    return targets


def _save(image: Path, answer: TaskResult, target: Path) -> None:
    """Write the image with its boxes, or its mask; nothing for other tasks."""
    if isinstance(answer, Segmentation):
        target.write_bytes(answer.png)
    elif isinstance(answer, Detection):
        from fingerpost.deploy.boxes import draw_boxes

        draw_boxes(image, answer, target)
    else:
        raise ConfigurationError(
            f"--save writes boxes and masks: {answer.model} gives a "
            f"{type(answer).__name__.lower()}; leave it out"
        )
