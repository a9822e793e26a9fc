"""Python classes: what they may be, and whose fault it is where they are not."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import Backend, LoadConfig, completed
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.models.files import find_model
from fingerpost.worker.tools.local import LocalModel

PIXEL = np.zeros((1, 1, 3), np.uint8)


def write(folder: Path, code: str, target: str = "mine:Model", more: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(code)
    (folder / "model.toml").write_text(f'framework = "python"\nclass = "{target}"\n{more}')
    return folder


def load(folder: Path, **options: Any) -> Backend:
    return load_backend(find_model(folder, name="m"), LoadConfig(**options))


def answering(number: int) -> str:
    return f"""
from helper import answer

class Model:
    height = width = 1

    def __init__(self, folder, *, device="cpu"):
        self.device = device
        self.number = answer() + {number}

    def predict(self, batch):
        return [[self.number]] * len(batch)

    def close(self):
        self.number = -1
"""


def test_two_versions_side_by_side(tmp_path: Path) -> None:
    """Modules of the same names, and each version keeps its own."""
    loaded = []
    for version in (1, 2):
        folder = write(tmp_path / "m" / str(version), answering(version))
        (folder / "helper.py").write_text(f"def answer(): return {version * 10}\n")
        loaded.append(load(folder, device="cuda:3"))
    first, second = loaded
    assert first.predict([PIXEL]).tolist() == [[11]]
    assert second.predict([PIXEL] * 2).tolist() == [[22]] * 2
    assert second.device == "cuda:3"
    first.close()
    assert first.predict([PIXEL]).tolist() == [[-1]]
    assert second.predict([PIXEL]).tolist() == [[22]]
    assert not any(str(tmp_path) in path for path in sys.path)
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_thread_that_walks_the_path_meanwhile_misses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "walked", sys.path, raising=False)
    folder = write(tmp_path / "m", answering(1))
    (folder / "helper.py").write_text(
        "import sys\nseen, path = [*sys.walked], [*sys.path]\ndef answer(): return 0\n"
    )
    known = [*sys.path]
    load(folder)
    helper = sys.modules["helper"]
    assert helper.path == [str(folder), *known]
    assert helper.seen == known == sys.path


def test_a_class_in_a_package_or_installed(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", "", target="kit.inner:Model")
    (folder / "kit").mkdir()
    (folder / "kit" / "inner.py").write_text(
        "from .parts import SIDE\nclass Model:\n  height = width = SIDE\n"
        "  def __init__(self, folder): pass\n  def predict(self, batch): return batch[:, 0, 0]\n"
    )
    (folder / "kit" / "parts.py").write_text("SIDE = 1\n")
    assert load(folder).predict([PIXEL + 9]).tolist() == [[9, 9, 9]]
    installed = write(tmp_path / "i", "", target="tests.worker.backends.installed:Model")
    assert load(installed).predict([PIXEL + 9]).tolist() == [[9, 9, 9]]


def test_the_manifest_is_over_the_class(tmp_path: Path) -> None:
    code = (
        "class Model:\n  width = 2\n  def __init__(self, folder): pass\n"
        "  def predict(self, batch): return batch.reshape(len(batch), -1)\n"
    )
    more = "[input]\nheight = 1\nchannels = 1\n[preprocessing]\nstd = 2\n"
    backend = load(write(tmp_path / "m", code, more=more))
    assert (backend.input.dtype, backend.input.tensor_shape) == ("float32", (1, 2, 1))
    assert backend.predict([np.array([[[4], [8]]], np.uint8)]).tolist() == [[2, 4]]
    assert backend.device == "cpu"


def test_inline_is_read_from_the_class_and_its_old_name_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = []
    for attribute in ("pass", "inline = True", "instant = True"):
        code = (
            f"class Model:\n  height = width = 1\n  {attribute}\n"
            "  def __init__(self, folder): pass\n  def predict(self, batch): return batch[:, 0]\n"
        )
        found.append(load(write(tmp_path / attribute[:4] / "1", code)).input.inline)
    assert found == [False, True, True]
    assert ["called 'inline' now" in message for message in caplog.messages] == [True]


_INIT = "class Model:\n  height = width = 1\n  def __init__(self, folder): "


@pytest.mark.parametrize(
    ("code", "target", "message"),
    [
        ("", "mine", "it must be 'package.module:Class'"),
        ("", "mine:Model", "class 'mine:Model' cannot be loaded: AttributeError: .*'Model'"),
        ("", "yours:Model", "ModuleNotFoundError: No module named 'yours'"),
        ("import nothing_of_the_kind", "mine:Model", "No module named 'nothing_of_the_kind'"),
        ("def", "mine:Model", "SyntaxError: "),
        (_INIT + "1 / 0", "mine:Model", "ZeroDivisionError: division by zero"),
        (_INIT + "(folder / 'weights').read_bytes()", "mine:Model", "FileNotFoundError: .*weights"),
        (_INIT + "pass", "mine:Model", "has no method predict"),
        (
            "class Model:\n  def __init__(self, folder, size): pass",
            "mine:Model",
            r"missing a required argument: 'size'.*give all other parameters a default",
        ),
        (_INIT + "pass\n  async def predict(s, b): ...", "mine:Model", "write 'def predict'"),
        (_INIT + "pass\n  labels = 'ab'\n  def predict(s, b): ...", "mine:Model", "list of names"),
        (_INIT + "pass\n  max_batch = 0\n  def predict(s, b): ...", "mine:Model", "1 to 4096"),
        (_INIT + "pass\n  def load(self): 1 / 0", "mine:Model", r"load\(\) fails: ZeroDiv"),
        (
            "class Model:\n  def __init__(self, f): pass\n  def predict(s, b): ...",
            "mine:Model",
            "which image size",
        ),
        (
            _INIT.replace("= 1", "= 2") + "pass\n  def predict(s, b): ...",
            "mine:Model",
            "height is 1",
        ),
        ("", "json:Model", "another module 'json' loaded already"),
    ],
)
def test_clear_errors(tmp_path: Path, code: str, target: str, message: str) -> None:
    folder = write(tmp_path / "m", code, target=target, more="[input]\nheight = 1")
    (folder / "json.py").write_text("")
    if target.startswith("mine") and "height" not in code:
        (folder / "model.toml").write_text(f'framework = "python"\nclass = "{target}"')
    with pytest.raises(ConfigurationError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) not in sys.path


@pytest.mark.parametrize("raised", ["SystemExit(3)", "asyncio.CancelledError(3)"])
def test_a_constructor_that_ends_the_process_is_an_error(tmp_path: Path, raised: str) -> None:
    code = f"""
import asyncio

class Model:
    height = width = 1

    def __init__(self, folder):
        raise {raised}
"""
    with pytest.raises(ConfigurationError, match=r"cannot be loaded: \w+: 3"):
        load(write(tmp_path / "m", code))


BRIGHTNESS = """
import numpy as np

class Model:
    height = width = 1
    labels = ("dark", "bright")
    max_batch = 3
    loaded = 0
{constructor}

    def load(self):
        self.loaded += 1

    def predict(self, images):
        bright = images.mean(axis=(1, 2, 3)) / 255 * self.loaded
        return np.stack([1 - bright, bright], axis=1)
{more}
"""


@pytest.mark.parametrize(
    ("constructor", "more", "target"),
    [
        ("", "", "Model"),
        ("    def __init__(self): pass", "", "Model"),
        ("    def __init__(self, *, device): assert device == 'cpu'", "", "Model"),
        ("    def __init__(self, scale=2.0, device=''): assert 0 < scale < 3", "", "Model"),
        ("    def __init__(self, scale=2.0, folder=None): scale, folder.name", "", "Model"),
        ("    def __init__(self, scale=2.0, name=None): assert name is None", "", "Model"),
        ("    def __init__(self, where=None): assert where.is_dir()", "", "Model"),
        ("    def __init__(self, device, where): assert where.is_dir()", "", "Model"),
        ("", "model = Model()", "model"),
        ("", "def made(folder): return Model()", "made"),
    ],
)
def test_what_serve_takes_works_as_a_folder(
    tmp_path: Path, constructor: str, more: str, target: str
) -> None:
    """Whatever the constructor takes, and with the labels and the batch of the object itself."""
    code = BRIGHTNESS.format(constructor=constructor, more=more)
    folder = write(tmp_path / "brightness", code, target=f"mine:{target}")
    files = find_model(folder)
    backend = load_backend(files, LoadConfig(device="cpu"))
    assert LocalModel(files, backend).classify(png(255), top=1) == (("bright", 1.0),)
    assert completed(files, backend).manifest.batch.max == 3
    (folder / "labels.txt").write_text("night\nday\n")
    manifest = folder / "model.toml"
    manifest.write_text(manifest.read_text() + "[batch]\nmax = 2\n")
    files = find_model(folder)
    assert LocalModel(files, backend).classify(png(0), top=1) == (("night", 1.0),)
    assert completed(files, backend).manifest.batch.max == 2


def test_a_load_that_needs_arguments_is_the_classs_own(tmp_path: Path) -> None:
    code = BRIGHTNESS.format(constructor="    def __init__(self): self.load2(1)", more="")
    code = code.replace("def load(self)", "def load(self, path)").replace("load2", "load")
    assert load(write(tmp_path / "m", code)).predict([PIXEL]).tolist() == [[1, 0]]


def png(gray: int) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (1, 1), (gray,) * 3).save(written, "PNG")
    return written.getvalue()
