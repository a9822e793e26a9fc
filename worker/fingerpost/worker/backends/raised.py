"""What the code of a model raises, a Python class above all."""

from __future__ import annotations

import threading

__all__ = ["is_the_models", "type_and_text"]


def is_the_models(error: BaseException) -> bool:
    """Whether an error that a model's code raised concerns this model alone.

    That is everything but Ctrl-C, which Python raises in the main thread. `SystemExit`, or the
    `CancelledError` of an event loop that the model runs, is no `Exception`: it would end the
    thread in which models run, without a word, and with it all requests.
    """
    main = threading.current_thread() is threading.main_thread()
    return not (main and isinstance(error, KeyboardInterrupt))


def type_and_text(error: BaseException) -> str:
    """The error's type and text, at most 300 characters: `RuntimeError: no weights`."""
    text = str(error)
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
