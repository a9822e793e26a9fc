"""What is known of one version of a model, on disk and in memory."""

from __future__ import annotations

from dataclasses import dataclass

from fingerpost.worker.models.status import VersionState

__all__ = ["VersionRecord"]


@dataclass(slots=True, kw_only=True)
class VersionRecord:
    """See the module.

    Attributes:
        files: the fingerprint of the last look; None where the folder is gone.
        settled: that fingerprint was the same in two looks, or is taken for whole.
        pinned, withheld: the operator wants it, or does without it, whatever the policy says.
        error: why it could not be loaded, from `failed_files`.
        retry_at: not to be tried again before; 0 for at once.
    """

    files: str | None
    settled: bool
    state: VersionState = VersionState.START
    pinned: bool = False
    withheld: bool = False
    error: str = ""
    failed_files: str | None = None
    failures: int = 0
    retry_at: float = 0.0

    @property
    def available(self) -> bool:
        return self.state is VersionState.AVAILABLE

    @property
    def candidate(self) -> bool:
        """Whether it can be wanted: it is there, or its folder is whole and has not failed."""
        if self.files is None:
            return False
        if self.state in (VersionState.AVAILABLE, VersionState.LOADING):
            return True
        return self.settled and (not self.error or self.files != self.failed_files)

    def retry(self) -> None:
        """Its files are whole, and a failure is forgotten."""
        self.settled, self.failed_files, self.retry_at = True, None, 0.0
        if self.state in (VersionState.START, VersionState.END):
            self.error = ""
