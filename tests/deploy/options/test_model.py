from __future__ import annotations

from pathlib import Path

from fingerpost.deploy.options.model import ModelOptions


def test_a_required_signature_is_passed_on_to_other_processes():
    """As `up` does to its workers, which may have another working directory."""
    options = ModelOptions(require_signature=Path("keys.json"), image_size=7)
    assert options.arguments() == (
        "--image-size=7",
        f"--require-signature={Path.cwd() / 'keys.json'}",
    )
    assert not ModelOptions(require_signature=Path("keys.json")).of_one_model()
