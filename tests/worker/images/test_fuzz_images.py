"""Mutated images give pixels or a typed error: a short run of `fuzz_images`, the same each time."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.costly_images import costly
from tests.support.pictures import specimens
from tests.worker.images.fuzz_images import check, mutate

SPECIMENS = specimens()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:::PIL")
@settings(max_examples=300, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(SPECIMENS)), rng=st.randoms(use_true_random=True))
def test_a_mutated_image_gives_pixels_or_a_typed_error(name: str, rng: random.Random) -> None:
    check(mutate(SPECIMENS[name], rng), rng)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:::PIL")
@settings(max_examples=200, deadline=None, derandomize=True)
@given(rng=st.randoms(use_true_random=True), whole=st.booleans())
def test_what_repeats_work_is_done_soon_or_refused(rng: random.Random, whole: bool) -> None:
    data = costly(rng)
    check(data if whole else mutate(data, rng), rng)


@pytest.mark.shell
def test_warnings_are_no_way_out_either() -> None:
    """As a worker runs, but with every warning an error."""
    script = [sys.executable, "-W", "error", "-m", "tests.worker.images.fuzz_images"]
    done = subprocess.run([*script, "--seconds", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    assert "pixels" in done.stdout
