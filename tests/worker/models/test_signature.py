"""Signed versions: only what was signed is found, and what is found is what was verified."""

from __future__ import annotations

import gc
import json
import os
import shutil

import pytest

from fingerpost.errors import ConfigurationError, UntrustedModel
from fingerpost.security.keys import SigningKey
from fingerpost.security.signing.trusted_keys import TrustedKeys
from fingerpost.worker.models import signature as module
from fingerpost.worker.models.signature import SIGNATURE_FILE, find_signed_model, sign_model
from tests.support.digits import write_model

KEY = SigningKey.generate()
KEYS = TrustedKeys(KEY.public, {})


@pytest.fixture
def version(tmp_path):
    """`models/digits/3`, not signed."""
    made = write_model(tmp_path)
    version = made / "3"
    version.mkdir()
    for each in list(made.iterdir()):
        if each != version:
            shutil.move(each, version / each.name)
    (version / "assets").mkdir()
    (version / "assets" / "words.txt").write_text("one\n")
    return version


@pytest.fixture
def signed(version):
    sign_model(version, KEY)
    return version


def find(path, keys=KEYS, **options):
    return find_signed_model(path, keys=keys, **options)


def test_a_signed_version_is_found_in_a_copy_that_is_removed_at_last(signed):
    found = find(signed.parent)
    assert (found.name, found.version) == ("digits", "3")
    assert found.digest.startswith("sha256:")
    assert found.labels == tuple("0123456789")
    folder = found.path
    assert folder != signed
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "light.py").read_bytes() == (signed / "light.py").read_bytes()
    assert (folder / "assets" / "words.txt").read_text() == "one\n"
    assert found.labels_files[0].parent == signed
    del found
    gc.collect()
    assert not folder.exists()


def test_what_is_found_stays_as_it_was_verified(signed):
    found = find(signed)
    (signed / "light.py").write_text("raise SystemExit")
    assert "SystemExit" not in (found.path / "light.py").read_text()


def test_a_file_that_is_exchanged_while_it_is_copied_is_refused(signed, monkeypatch):
    real = module._content

    def exchanging(path, **options):
        for chunk in real(path, **options):
            if path.name == "light.py":
                path.write_text("raise SystemExit")
                yield from real(path)
            else:
                yield chunk

    monkeypatch.setattr(module, "_content", exchanging)
    with pytest.raises(UntrustedModel, match=r"light\.py has been changed"):
        find(signed)


def test_the_digest_is_of_the_content(signed):
    first = find(signed).digest
    os.utime(signed / "light.py", (1, 1))
    assert find(signed).digest == first
    (signed / "labels.txt").write_text("".join(f"{digit}!\n" for digit in range(10)))
    sign_model(signed, KEY)
    assert find(signed).digest != first


def append(path, text):
    path.write_text(path.read_text() + text)


def relabel_manifest(folder, **change):
    path = folder / SIGNATURE_FILE
    document = json.loads(path.read_text())
    document["manifest"] |= change
    path.write_text(json.dumps(document))


TAMPERED = {
    "a changed file": (lambda f: append(f / "light.py", "\n"), "light.py has been changed"),
    "a longer file": (
        lambda f: append(f / "assets" / "words.txt", "two\n" * 1000),
        "words.txt has been changed",
    ),
    "an extra file": (lambda f: (f / "sitecustomize.py").touch(), "'sitecustomize.py' is not in"),
    "a missing file": (lambda f: (f / "labels.txt").unlink(), "'labels.txt' is missing"),
    "a symlink to another file": (
        lambda f: ((f / "labels.txt").unlink(), (f / "labels.txt").symlink_to("/etc/passwd")),
        "labels.txt has been changed",
    ),
    "a symlink to a folder": (
        lambda f: (shutil.rmtree(f / "assets"), (f / "assets").symlink_to("/etc")),
        "is a symlink to a folder",
    ),
    "a pipe": (
        lambda f: ((f / "labels.txt").unlink(), os.mkfifo(f / "labels.txt")),
        "is not a regular file",
    ),
    "no signature": (lambda f: (f / SIGNATURE_FILE).unlink(), "is not signed: .*model sign"),
    "not a signature": (lambda f: (f / SIGNATURE_FILE).write_text("[" * 9999), "is not a sig"),
    "an empty one": (lambda f: (f / SIGNATURE_FILE).write_text(""), "is not a signature"),
    "another manifest": (lambda f: relabel_manifest(f, files={}), "changed since it was signed"),
    "another version": (lambda f: f.rename(f.parent / "4"), "is the signature of digits@3, not of"),
    "another model": (
        lambda f: f.parent.rename(f.parent.parent / "birds"),
        "is the signature of digits@3, not of birds@3",
    ),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_what_was_tampered_with_is_refused(signed, how):
    tamper, message = TAMPERED[how]
    tamper(signed)
    models = signed.parent.parent
    (version,) = [each for each in models.glob("*/*") if each.name.isdecimal()]
    with pytest.raises(UntrustedModel, match=message) as refused:
        find(version)
    assert (refused.value.code, refused.value.status) == ("untrusted_model", 403)


def test_a_path_that_leads_out_is_refused_though_signed(version, monkeypatch):
    (version.parent / "outside").write_text("x")
    monkeypatch.setattr(module, "_listed", lambda folder: iter(["../outside"]))
    sign_model(version, KEY)
    with pytest.raises(UntrustedModel, match="outside of its folder"):
        find(version)


def test_keys_of_strangers_and_of_other_models(signed):
    stranger = TrustedKeys(SigningKey.generate().public, {})
    with pytest.raises(UntrustedModel, match=f"signed by the key {KEY.kid}, which is not among"):
        find(signed, stranger)
    with pytest.raises(UntrustedModel, match="may not sign for digits"):
        find(signed, TrustedKeys(KEY.public, {KEY.kid: ("birds",)}))
    assert find(signed, TrustedKeys(KEY.public, {KEY.kid: ("dig*",)})).digest


def test_a_registrations_signature_is_not_a_models(signed):
    path = signed / SIGNATURE_FILE
    document = json.loads(path.read_text())
    manifest = module.msgspec.json.decode(
        json.dumps(document["manifest"]), type=module.SignedManifest
    )
    document["signature"] = module.sign_statement(KEY, purpose="registration", data=manifest.data)
    path.write_text(json.dumps(document))
    with pytest.raises(UntrustedModel, match="changed since"):
        find(signed)


def test_pythons_cache_is_neither_signed_nor_loaded(signed):
    (signed / "__pycache__").mkdir()
    (signed / "__pycache__" / "light.cpython-311.pyc").write_bytes(b"evil")
    assert not (find(signed).path / "__pycache__").exists()


def test_a_model_of_one_file_has_no_signature(tmp_path):
    (tmp_path / "flowers.onnx").write_bytes(b"x")
    with pytest.raises(ConfigurationError, match="put it into one of its own, such as models/"):
        find(tmp_path / "flowers.onnx")
    with pytest.raises(ConfigurationError, match="a signature is of a folder"):
        sign_model(tmp_path / "flowers.onnx", KEY)


def test_what_cannot_be_signed_is_named(version):
    (version / "gone.txt").symlink_to(version / "nowhere")
    with pytest.raises(ConfigurationError, match=r"gone\.txt cannot be read: No such file"):
        sign_model(version, KEY)
    (version / "gone.txt").unlink()
    name = os.fsdecode(b"caf\xe9.txt")
    (version / name).touch()
    with pytest.raises(UntrustedModel, match="is not UTF-8"):
        sign_model(version, KEY)
    assert not (version / SIGNATURE_FILE).exists()


def test_a_signature_is_replaced_in_one_step(signed):
    before = (signed / SIGNATURE_FILE).read_bytes()
    (signed / "labels.txt").write_text("x\n" * 10)
    sign_model(signed, KEY)
    assert (signed / SIGNATURE_FILE).read_bytes() != before
    assert not list(signed.glob(".*"))
    assert find(signed).labels == ("x",) * 10
