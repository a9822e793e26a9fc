"""Signed versions of models: only what somebody with a key has approved is loaded.

`fingerpost model sign` writes `model.sig` into a version's folder: the model's name and version,
the size and SHA-256 of each file, and a signature of all that by an Ed25519 key. A worker with
`--require-signature` copies the listed files into a folder of its own while it digests them, and
loads the model from there: what is loaded is what was verified, whatever happens to the files
meanwhile. A file that is not listed, a symlink to a folder or anything but a regular file is
refused, although it would not be copied: somebody put it there.

The digest of a version is the SHA-256 of that list. It covers the name and the version, so that a
signature of `flowers@3` is not one of `flowers@4`.

Rejected: digesting before and after the load, because a file can be another one in between;
Sigstore's bundle, whose client brings many packages and, to be of use, needs a transparency log
that workers can reach; signing archives, because frameworks want folders.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from fingerpost.errors import ConfigurationError, UntrustedModel
from fingerpost.security.secret_file import write_file
from fingerpost.security.signing.statement import Flaw, Statement, sign_statement
from fingerpost.worker.models.files import ModelFiles, find_model, locate_model
from fingerpost.worker.models.private_copy import PrivateCopy

if TYPE_CHECKING:
    from fingerpost.security.keys import SigningKey
    from fingerpost.security.signing.trusted_keys import TrustedKeys

__all__ = ["SIGNATURE_FILE", "SignedManifest", "find_signed_model", "sign_model"]

SIGNATURE_FILE: Final = "model.sig"

_PURPOSE: Final = "model"
_MAX_BYTES: Final = 16_000_000
_MAX_FILES: Final = 10_000
_CHUNK: Final = 1 << 20
# Python writes it beside a module that it imports; it is neither signed nor copied.
_IGNORED: Final = "__pycache__"
_WHY: Final = {
    Flaw.UNKNOWN_KEY: "is signed by the key {kid}, which is not among those that are believed: "
    "add that key, or have it signed by another one",
    Flaw.WRONG_SIGNATURE: "has been changed since it was signed",
    Flaw.NOT_ALLOWED: "is signed by the key {kid}, which may not sign for {name} (`services`)",
}


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bytes: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class SignedManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is signed of a version: its name, and each file's size and digest, by its path."""

    model: str
    version: str
    files: dict[str, _File]

    @property
    def data(self) -> bytes:
        """The canonical form, JSON with sorted keys."""
        return msgspec.json.encode(self, order="sorted")

    @property
    def digest(self) -> str:
        """`sha256:` and the digest of the canonical form in hexadecimal."""
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"


class _SignatureFile(msgspec.Struct, frozen=True, kw_only=True):
    manifest: SignedManifest
    signature: str


def sign_model(
    path: Path, key: SigningKey, *, name: str | None = None, version: str | None = None
) -> tuple[Path, SignedManifest]:
    """Sign a version, in the file `model.sig` in its folder; an older one is replaced.

    Args:
        path: the version's folder, or the model's folder of versions.
        key: the key that signs.
        name, version: what it will be served as; by default as `find_model` finds them.

    Raises:
        ConfigurationError: not a model in a folder, or its files cannot be read.
    """
    folder, name, version = _folder(path, name, version)
    files: dict[str, _File] = {}
    for relative in _listed(folder):
        digest, size = hashlib.sha256(), 0
        try:
            for chunk in _content(folder / relative):
                digest.update(chunk)
                size += len(chunk)
        except OSError as error:
            raise ConfigurationError(
                f"{folder / relative} cannot be read: {error.strerror}"
            ) from error
        files[relative] = _File(size, digest.hexdigest())
    if not files:
        raise ConfigurationError(f"{folder} has no files: there is nothing to sign")
    manifest = SignedManifest(model=name, version=version, files=files)
    signature = sign_statement(key, purpose=_PURPOSE, data=manifest.data)
    content = msgspec.json.encode(_SignatureFile(manifest=manifest, signature=signature))
    target = folder / SIGNATURE_FILE
    text = msgspec.json.format(content, indent=1) + b"\n"
    write_file(target, text, mode=0o644, replace=True)
    return target, manifest


def find_signed_model(
    path: Path,
    *,
    keys: TrustedKeys,
    name: str | None = None,
    version: str | None = None,
    root: Path | None = None,
    **options: Any,
) -> ModelFiles:
    """Verify a version's signature, and find the model in a private copy of its files.

    It blocks for as long as copying the files takes.

    Args:
        path: see `find_model`, and the other arguments, too.
        keys: the keys that are believed, each for its models.

    Raises:
        UntrustedModel: no signature, one that is not believed, or files that are not those signed.
        ConfigurationError: see `find_model`.
    """
    folder, name, version = _folder(path, name, version)
    manifest = _verified(folder, keys, name, version)
    listed = set(_listed(folder))
    for relative in sorted(listed.symmetric_difference(manifest.files)):
        what = "is not in its signature" if relative in listed else "is missing"
        raise UntrustedModel(
            f"{folder}: the file {relative!r} {what}: put back what was signed, or sign it anew"
        )
    copy = PrivateCopy()
    try:
        for relative, file in manifest.files.items():
            _copy(folder, relative, copy.folder, file)
        found = find_model(copy.folder, name=name, version=version, **options)
    except BaseException:
        copy.remove()
        raise
    # Where the operator changes them: what is there then is verified again.
    labels = tuple(
        folder / each.relative_to(copy.folder) if each.is_relative_to(copy.folder) else each
        for each in found.labels_files
    )
    return replace(found, labels_files=labels, digest=manifest.digest, copy=copy)


def _folder(path: Path, name: str | None, version: str | None) -> tuple[Path, str, str]:
    _, folder, name, version = locate_model(path, name=name, version=version)
    if not folder.is_dir():
        raise ConfigurationError(
            f"{path} is a file: a signature is of a folder; put it into one of its own, such as "
            f"models/{name}/{version}"
        )
    return folder, name, version


def _verified(folder: Path, keys: TrustedKeys, name: str, version: str) -> SignedManifest:
    path = folder / SIGNATURE_FILE
    try:
        content = b"".join(_content(path, most=_MAX_BYTES))
    except FileNotFoundError as error:
        raise UntrustedModel(
            f"{name}@{version} is not signed: there is no {path}; sign it by "
            f"`fingerpost model sign {folder} --key KEY`"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    try:
        read = msgspec.json.decode(content, type=_SignatureFile)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UntrustedModel(f"{path} is not a signature of a model: {error}") from error
    manifest = read.manifest
    statement = Statement.parse(read.signature)
    if statement is None:
        raise UntrustedModel(f"{path} is not a signature of a model: {read.signature[:40]!r}")
    verdict = statement.verdict(keys, purpose=_PURPOSE, data=manifest.data, name=manifest.model)
    if verdict.flaw is not None:
        why = _WHY[verdict.flaw].format(kid=verdict.kid, name=manifest.model)
        raise UntrustedModel(f"{name}@{version} {why} ({path})")
    if (manifest.model, manifest.version) != (name, version):
        raise UntrustedModel(
            f"{path} is the signature of {manifest.model}@{manifest.version}, not of "
            f"{name}@{version}"
        )
    for relative in manifest.files:
        parts = PurePosixPath(relative)
        if (
            parts.is_absolute()
            or ".." in parts.parts
            or not re.fullmatch(r"[^\0]{1,1000}", relative)
        ):
            raise UntrustedModel(f"{path} names the file {relative!r}, outside of its folder")
    return manifest


def _listed(folder: Path) -> Iterator[str]:
    """The files in a folder and below, but the signature; each as a path with slashes."""
    count = 0
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if each != _IGNORED)
        for each in folders:
            if (link := Path(root, each)).is_symlink():
                raise UntrustedModel(
                    f"{link} is a symlink to a folder, which a signature does not cover: copy the "
                    "files there"
                )
        for each in sorted(names):
            relative = Path(root, each).relative_to(folder).as_posix()
            if relative == SIGNATURE_FILE:
                continue
            if not _is_text(relative):
                raise UntrustedModel(f"{folder}: the file name {relative!r} is not UTF-8")
            count += 1
            if count > _MAX_FILES:
                raise UntrustedModel(f"{folder} has over {_MAX_FILES:,} files")
            yield relative


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _copy(folder: Path, relative: str, into: Path, expected: _File) -> None:
    target = into / relative
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    digest, size = hashlib.sha256(), 0
    try:
        with target.open("xb") as file:
            for chunk in _content(folder / relative):
                size += len(chunk)
                if size > expected.bytes:
                    break  # a file may grow for ever
                digest.update(chunk)
                file.write(chunk)
    except OSError as error:
        raise ConfigurationError(
            f"{folder / relative} cannot be copied to {into}: {error.strerror}; the copy of a "
            "model needs room there (TMPDIR names another folder)"
        ) from error
    if size != expected.bytes or digest.hexdigest() != expected.sha256:
        raise UntrustedModel(
            f"{folder / relative} has been changed since it was signed: put back the file, or "
            "sign the version anew"
        )


def _content(path: Path, *, most: int | None = None) -> Iterator[bytes]:
    """The pieces of a regular file; a pipe or a device is not read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise UntrustedModel(f"{path} is not a regular file")
        if most is not None and state.st_size > most:
            raise UntrustedModel(f"{path} has more than {most:,} bytes")
        while chunk := file.read(_CHUNK):
            yield chunk
