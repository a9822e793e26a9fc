"""A policy file that is read again when it changes; a broken one keeps the last good policy."""

from __future__ import annotations

import logging
import stat
from typing import TYPE_CHECKING

from fingerpost.basics.config_file import read_config
from fingerpost.errors import ConfigurationError
from fingerpost.security.callers.policy import MAX_POLICY_BYTES, Policy

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PolicyFile", "read_policy"]

logger = logging.getLogger(__name__)


def read_policy(path: Path) -> Policy:
    """The policy in a file.

    Raises:
        ConfigurationError: there is none, or it is not valid.
    """
    try:
        content = read_config(path, most=MAX_POLICY_BYTES)
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"there is no file {path} with the callers: `fingerpost caller add NAME --callers "
            f"{path}` makes one"
        ) from error
    if mode & stat.S_IWOTH:
        raise ConfigurationError(
            f"everybody on this machine may change {path} (mode {mode & 0o777:04o}), and so the "
            f"rights in it: run chmod o-w {path}"
        )
    return Policy.parse(content, path)


class PolicyFile:
    """The policy in a file, as it was last good.

    Args:
        path: the file.

    Attributes:
        policy: the last good policy.
        problem: why the file cannot be used as it is now; empty while it can.
        reads: how often it was read well.
        failures: how often it was broken.

    Raises:
        ConfigurationError: there is no good policy to begin with.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _state(path)
        self.policy = _with_callers(read_policy(path), path)
        self.problem = ""
        self.reads = 1
        self.failures = 0

    def changed(self) -> bool:
        """Whether the file is another one than that which was read last; one `stat`."""
        return _state(self._path) != self._seen

    def read_again(self) -> bool:
        """Read the file, which may take a second where it has 10,000 callers.

        Whether there is a new policy; where the file is broken, `problem` says why.
        """
        seen = _state(self._path)
        try:
            policy = _with_callers(read_policy(self._path), self._path)
        except ConfigurationError as error:
            self.failures += 1
            if error.message != self.problem:
                logger.error("%s; the last good policy stays in use", error)  # noqa: TRY400 - one line
            self.problem = error.message
            return False
        else:
            self.policy, self.problem = policy, ""
            self.reads += 1
            logger.info("%s was read again: %d callers", self._path, len(policy.entries))
            return True
        finally:
            self._seen = seen


def _with_callers(policy: Policy, path: Path) -> Policy:
    """A policy that lets somebody in: a file that is being written may be empty for a moment."""
    if not policy.entries:
        raise ConfigurationError(
            f"{path} has no [[callers]], so that nobody could ask: `fingerpost caller add NAME "
            f"--callers {path}` adds one"
        )
    return policy


def _state(path: Path) -> tuple[int, int, int] | None:
    """Values that change with the file; ctime also changes with its rights and its owner."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ctime_ns, state.st_ino, state.st_size
