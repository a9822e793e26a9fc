"""The ACL token that is sent with every call, and passwords kept out of messages."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from fingerpost.basics.config_file import read_config
from fingerpost.errors import ConfigurationError
from fingerpost.registry.config import check_token

__all__ = ["Token", "mask_password"]

logger = logging.getLogger(__name__)


class Token:
    """An ACL token, or another credential, given as text or as a file.

    The file's state is read before each call (one `stat`), and the file when it was replaced or
    written to. While it is missing or not valid, as in the middle of a rotation, the last good
    token stays in use.

    Args:
        token: the token.
        file: a file that holds it and nothing else.
        what: what it is called in messages.

    Raises:
        ConfigurationError: `token` is not a valid one, or `file` cannot be read or does not hold
            one.
    """

    def __init__(
        self, token: str | None = None, file: str | None = None, *, what: str = "ACL token"
    ) -> None:
        self._what = what
        self._token = None if token is None else check_token(token, "what was given", what)
        self._path = None if file is None else Path(file)
        self._seen: tuple[int, int, int] | None = None
        self._in_trouble = False
        if self._path is not None:
            self._read(self._path)

    def current(self) -> str | None:
        """The token to send with the next call, or None."""
        if self._path is not None:
            try:
                if self._state(self._path) != self._seen:
                    self._read(self._path)
                    logger.info("the %s was read again from %s", self._what, self._path)
                self._in_trouble = False
            except (OSError, ConfigurationError) as error:
                if not self._in_trouble:
                    logger.warning("%s; the last token stays in use", error)
                self._in_trouble = True
        return self._token

    def _read(self, path: Path) -> None:
        try:
            # The state first: a write between the two is seen at the next call.
            seen = self._state(path)
            text = read_config(path).decode("ascii")
        except OSError as error:
            raise ConfigurationError(
                f"token_file {str(path)!r} cannot be read: {error.strerror}; it must hold the "
                f"{self._what}"
            ) from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(
                f"token_file {str(path)!r} is not ASCII text; it must hold the {self._what}"
            ) from error
        self._token = check_token(
            text.strip(), f"the content of token_file {str(path)!r}", self._what
        )
        self._seen = seen

    @staticmethod
    def _state(path: Path) -> tuple[int, int, int]:
        state = path.stat()
        return state.st_ctime_ns, state.st_ino, state.st_size


def mask_password(url: str) -> str:
    """The URL without its user name and password, for messages, which end up in logs."""
    return re.sub(r"//.*@", "//***@", url)
