"""`fingerpost keys`: the keys that proxies sign leases with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fingerpost.deploy.console import out
from fingerpost.deploy.options.registry import takes_registry_options
from fingerpost.registry.config import RegistryConfig

if TYPE_CHECKING:
    from fingerpost.deploy.key_rotation import KeyRotation, PublishedKeys

__all__ = ["add_to"]

KeyFile = Annotated[Path, typer.Option("--key", metavar="FILE", help="The private key, mode 0600.")]
KeysFile = Annotated[
    Path | None,
    typer.Option(
        "--keys-file",
        metavar="FILE",
        help="Publish in this file (JWKS), for --lease-keys of workers, not in the registry.",
        show_default=False,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    keys = typer.Typer(
        name="keys",
        help="Make, publish and rotate the keys of leases; make those of ZeroMQ.",
        no_args_is_help=True,
    )
    for command in (init, publish, rotate, show):
        keys.command()(takes_registry_options(command))
    keys.command()(curve)
    app.add_typer(keys)


def init(
    *,
    key: KeyFile = Path("lease.key"),
    keys_file: KeysFile = None,
    registry: str,
    registry_config: RegistryConfig,
) -> None:
    """Make a first key, and publish its public part; an existing file is not overwritten."""

    async def work(rotation: KeyRotation, _: PublishedKeys) -> None:
        made = await rotation.init()
        out.print(f"wrote {key} and published {made.kid}")
        if keys_file is None:
            out.print(
                f"Next: `fingerpost proxy --lease-key {key}`, then workers with --require-lease"
            )
        else:
            out.print(
                f"Next, for leases: `fingerpost proxy --lease-key {key}`, then workers with "
                f"--require-lease --lease-keys {keys_file}. For registrations: `fingerpost worker "
                f"--registration-key {key}`, then proxies and clients with --registration-keys "
                f"{keys_file}. For models: `fingerpost model sign --key {key}`, then workers with "
                f"--require-signature {keys_file}. Use another key for each"
            )

    _run(work, key, keys_file, registry, registry_config)


def publish(
    *,
    key: KeyFile = Path("lease.key"),
    keys_file: KeysFile = None,
    registry: str,
    registry_config: RegistryConfig,
) -> None:
    """Publish the public part of a key beside the published ones."""

    async def work(rotation: KeyRotation, _: PublishedKeys) -> None:
        out.print(f"published {(await rotation.add()).kid}")

    _run(work, key, keys_file, registry, registry_config)


def rotate(
    *,
    key: KeyFile = Path("lease.key"),
    stage: Annotated[
        Literal["all", "publish", "sign", "retire"],
        typer.Option(
            help="Do one step only, where proxies on several machines have copies of the key."
        ),
    ] = "all",
    wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="How long workers may take to read the new key.", min=0
        ),
    ] = 20.0,
    life: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="How long leases of the old key still count: --lease-life of the proxies, and "
            "--lease-grace of the workers.",
            min=0,
        ),
    ] = 300.0,
    keys_file: KeysFile = None,
    registry: str,
    registry_config: RegistryConfig,
) -> None:
    """Sign with another key: publish it, sign with it, withdraw the old one. Nothing is refused.

    It takes --wait and --life seconds, and can be broken off and run again.
    """

    async def work(rotation: KeyRotation, _: PublishedKeys) -> None:
        left = rotation.stage if stage == "all" else stage
        if left == "publish":
            made = await rotation.publish()
            out.print(f"published {made.kid} beside the old key, in {key}.next")
        if stage == "all" and left == "publish":
            out.print(f"waiting {wait:g} s, until all workers have read it")
            await asyncio.sleep(wait)
            left = "sign"
        if left == "sign":
            used = await rotation.sign()
            out.print(f"{key} is {used.kid} now; proxies sign with it within two seconds")
        if stage == "all":
            out.print(f"waiting {life + _SKEW_S:g} s, until the leases of the old key have ended")
            await asyncio.sleep(life + _SKEW_S)
            left = "retire"
        if left == "retire":
            out.print(f"withdrew {', '.join(await rotation.retire()) or 'nothing'}")

    _run(work, key, keys_file, registry, registry_config)


def show(
    *,
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="Print the public part of this key, not what is published.",
        ),
    ] = None,
    keys_file: KeysFile = None,
    registry: str,
    registry_config: RegistryConfig,
) -> None:
    """Print public keys as a JWKS document."""
    from fingerpost.security.key_files import load_signing_key

    if key is not None:
        typer.echo(load_signing_key(key).public.encode().decode(), nl=False)
        return

    async def work(_: KeyRotation, published: PublishedKeys) -> None:
        typer.echo((await published.read()).encode().decode(), nl=False)

    _run(work, Path("lease.key"), keys_file, registry, registry_config)


def curve(
    *,
    key: Annotated[
        Path,
        typer.Option(
            "--key", metavar="FILE", help="The key pair, mode 0600; one that exists is kept."
        ),
    ] = Path("zmq.key"),
) -> None:
    """Make a key pair for ZeroMQ, and print its public key: a line for --zmq-clients of workers."""
    from fingerpost.deploy.curve import curve_key

    typer.echo(f"{curve_key(key).decode()} {key.stem}")


# A lease counts for 30 s after its end, as clocks differ; proxies take 2 s to read the new key.
_SKEW_S = 35.0


def _run(
    work: Callable[[KeyRotation, PublishedKeys], Awaitable[None]],
    key: Path,
    keys_file: Path | None,
    url: str,
    registry_config: RegistryConfig,
) -> None:
    from fingerpost.deploy.key_rotation import FileKeys, KeyRotation, RegistryKeys
    from fingerpost.registry import open_registry

    async def run() -> None:
        if keys_file is not None:
            published: PublishedKeys = FileKeys(keys_file)
            await work(KeyRotation(key, published), published)
            return
        registry = open_registry(url, registry_config)
        try:
            published = RegistryKeys(registry)
            await work(KeyRotation(key, published), published)
        finally:
            await registry.aclose()

    asyncio.run(run())
