"""Runs a page of the documents as a reader would: its steps, one after the other, in one shell.

A step is a fenced block of `sh`. A fenced block of `text` right after it is what the step prints:
`...` stands for anything, and white space counts as one blank. Other blocks are shown only.
"""

from __future__ import annotations

import base64
import doctest
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from markdown_it import MarkdownIt

__all__ = ["Shell", "Step", "matches", "steps_of", "walk"]

_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_END = "end-of-step-7b1c"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Commands, and what they print; `expected` is empty where the page does not say."""

    section: str
    line: int  # in the page, of its first command
    commands: str
    expected: str = ""


def steps_of(text: str) -> list[Step]:
    """The steps of a page in Markdown, in order.

    Raises:
        ValueError: an output stands without its step.
    """
    steps: list[Step] = []
    section = ""
    may_follow = False
    tokens = MarkdownIt().parse(text)
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "inline" and before is not None and before.type == "heading_open":
            section = token.content
        if token.type == "fence" and token.info == "text":
            if not may_follow:
                raise ValueError(
                    f"line {_line(token.map)}: an output without its step: {token.content}"
                )
            steps[-1] = replace(steps[-1], expected=token.content)
        may_follow = token.type == "fence" and token.info == "sh"
        if may_follow:
            steps.append(Step(section=section, line=_line(token.map), commands=token.content))
    return steps


def _line(place: Sequence[int] | None) -> int:
    return place[0] + 2 if place else 0


def matches(expected: str, output: str) -> bool:
    """Whether a step printed what its page says."""
    want, got = (text.strip() + "\n" for text in (expected, output))
    return doctest.OutputChecker().check_output(want, got, _FLAGS)


class Shell:
    """A bash that keeps its variables, functions and folder from one step to the next.

    It ends with the first command that fails, like a reader would.
    """

    def __init__(
        self,
        command: Iterable[object] = ("bash",),
        *,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [str(each) for each in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=folder,
            env={**os.environ, **(environment or {})},
        )
        self._send("set -e\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # with what a step has left behind
        self._process.communicate()

    def _send(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def run(self, commands: str, *, within_s: float = 300) -> str:
        """What the commands print.

        Raises:
            AssertionError: one of them failed, or they took longer.
        """
        # In base64, so that a command that reads its input does not read the steps after it.
        coded = base64.b64encode(commands.encode()).decode()
        self._send(f'eval "$(echo {coded} | base64 -d)" </dev/null; echo {_END}\n')
        output = self._read(time.monotonic() + within_s)
        said, found, _ = output.partition(f"{_END}\n")
        if not found:
            ended = self._process.poll() is not None
            what = "a command failed" if ended else f"not done within {within_s:g} s"
            raise AssertionError(f"{what}:\n{commands}\n{said}")
        return said

    def _read(self, until: float) -> str:
        assert self._process.stdout is not None
        output = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while (left_s := until - time.monotonic()) > 0:
                if not selector.select(left_s):
                    break
                if not (piece := os.read(self._process.stdout.fileno(), 65536)):
                    self._process.wait(5)
                    break
                output += piece
                if output.endswith(f"{_END}\n".encode()):
                    break
        return output.decode(errors="replace")


def walk(page: Path, shell: Shell, *, within_s: float = 300) -> float:
    """Run the page's steps; prints how long each took, and returns the seconds of all.

    Raises:
        AssertionError: a step failed, or printed something else than the page says.
    """
    began = time.monotonic()
    for step in steps_of(page.read_text("utf-8")):
        since = time.monotonic()
        output = shell.run(step.commands, within_s=within_s)
        print(f"{page.name}:{step.line} {time.monotonic() - since:5.1f} s  {step.section}")
        if step.expected and not matches(step.expected, output):
            raise AssertionError(
                f"{page}:{step.line} printed\n{output}\nand the page says\n{step.expected}"
            )
    return time.monotonic() - began
