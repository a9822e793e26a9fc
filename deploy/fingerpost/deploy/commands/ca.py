"""`fingerpost ca`: a small certificate authority, for a test or a first cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fingerpost.deploy import options
from fingerpost.deploy.console import out, print_json
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.security.ca import Issued

__all__ = ["add_to"]

Folder = Annotated[Path, typer.Option("--dir", metavar="DIR", help="The folder of the authority.")]
Days = Annotated[float, typer.Option(metavar="N", help="Days for which it is valid.")]
NewKey = Annotated[bool, typer.Option("--new-key", help="Change the private key, too.")]


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    ca = typer.Typer(
        name="ca",
        help="Make certificates for a test or a first cluster.",
        no_args_is_help=True,
    )
    for command in (init, issue, renew):
        ca.command()(command)
    app.add_typer(ca)


def init(
    *,
    trust_domain: Annotated[
        str, typer.Option(metavar="DOMAIN", help="The trust domain of all SPIFFE ids.")
    ],
    folder: Folder = Path("ca"),
    days: Days = 365.0,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|CIDR",
            help="A host name (and those below it) or network that it may sign for, besides "
            "localhost, the trust domain and private networks; repeatable.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make an authority in a folder: ca.pem for everybody, ca-key.pem for nobody else.

    It can sign for this trust domain and for the allowed hosts only, even in a thief's hands.
    """
    from fingerpost.security.ca import make_authority

    made = make_authority(folder, trust_domain, days=days, allow=allow or ())
    out.print(f"wrote {made.certificate}, valid until {made.expires:%Y-%m-%d %H:%M} UTC")
    out.print(
        f"Next: `fingerpost ca issue worker SERVICE --host HOST --dir {folder}`, and the same for "
        f"`proxy` and `client`; give {made.certificate} to all, and keep the folder to yourself",
    )


def issue(
    role: Annotated[
        Literal["worker", "proxy", "client", "registry"],
        typer.Argument(metavar="ROLE", help="worker, proxy, client or registry."),
    ],
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]", help="A worker's service; otherwise a name of your choice."
        ),
    ] = "",
    *,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="A host name or address that others reach it at; repeatable. By default this "
            "machine's loopback; a client has none.",
            show_default=False,
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERVICE",
            help="Another service of a worker that serves several models; repeatable.",
            show_default=False,
        ),
    ] = None,
    folder: Folder = Path("ca"),
    target: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to write it; by default to --dir."),
    ] = None,
    days: Days = 7.0,
    json: options.Json = False,
) -> None:
    """Make a key and a certificate for one process; it is not overwritten."""
    from fingerpost.security.ca import Authority

    authority = Authority(folder)
    made = authority.issue(role, name, also=also or (), hosts=host or (), days=days, folder=target)
    _print(made, json=json)
    if not json:
        out.print(
            f"Next: start it with --tls-cert {made.certificate} --tls-key {made.key}; those that "
            f"talk to it get --tls-ca {authority.certificate}. Renew it before it ends, for "
            f"instance every night: `fingerpost ca renew {made.certificate} --dir {folder}`",
        )


def renew(
    certificate: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CERTIFICATE]", help="A certificate's file; none is the authority itself."
        ),
    ] = None,
    *,
    folder: Folder = Path("ca"),
    days: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="Days for which it is valid [default: 7, the authority 365]",
            show_default=False,
        ),
    ] = None,
    new_key: NewKey = False,
    retire_old: Annotated[
        bool,
        typer.Option(
            "--retire-old", help="Remove from ca.pem the certificates of the authority's old keys."
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Give a certificate, or the authority itself, a new life in the same files.

    Processes read them again by themselves.
    """
    from fingerpost.security.ca import Authority

    authority = Authority(folder)
    if certificate is not None:
        if retire_old:
            raise ConfigurationError(
                "--retire-old is about the authority: leave out the certificate"
            )
        _print(authority.renew(certificate, days=days or 7.0, new_key=new_key), json=json)
        return
    if retire_old and (new_key or days is not None):
        raise ConfigurationError("--retire-old makes nothing new: give it alone")
    renewed = authority.renew_itself(days=days or 365.0, new_key=new_key, retire_old=retire_old)
    if json:
        print_json({"certificate": str(renewed.certificate), "expires": renewed.expires})
        return
    out.print(f"wrote {renewed.certificate}, valid until {renewed.expires:%Y-%m-%d %H:%M} UTC")
    if new_key:
        out.print(
            f"Next: give {renewed.certificate}, which has the old authority too, to all; then "
            f"`fingerpost ca renew CERTIFICATE --dir {folder}` for each; then "
            f"`fingerpost ca renew --retire-old --dir {folder}`, and give it to all again",
        )


def _print(made: Issued, *, json: bool) -> None:
    if json:
        print_json(
            {
                "certificate": str(made.certificate),
                "key": str(made.key),
                "names": made.names,
                "expires": made.expires,
            }
        )
        return
    out.print(
        f"wrote {made.certificate} and {made.key} for {', '.join(made.names)}, valid until "
        f"{made.expires:%Y-%m-%d %H:%M} UTC",
    )
