"""What is known about one version of a model, on disk and in memory."""

from __future__ import annotations

from dataclasses import dataclass

from fingerpost.worker.models.status import VersionState

__all__ = ["VersionRecord"]


@dataclass(slots=True, kw_only=True)
class VersionRecord:
    """What is known about one version of a model.

    Attributes:
        files: the fingerprint of its files in the last scan; None where the folder is gone.
        settled: whether two scans in a row found that fingerprint, so that the files are complete.
        state: what the version is doing.
        pinned, withheld: the operator loaded it, or unloaded it, whatever the policy says.
        error: why it could not be loaded, or why its changed labels are not used; else empty.
        used_files: the fingerprint of the files that what is loaded was made from, or that were
            looked at since.
        failed_files: the fingerprint of the files that it could not be loaded from.
        failures: how often in a row it could not be loaded.
        retry_at: the earliest time of the next try, as passed in; 0 is at once.
    """

    files: str | None
    settled: bool
    state: VersionState = VersionState.START
    pinned: bool = False
    withheld: bool = False
    error: str = ""
    used_files: str | None = None
    failed_files: str | None = None
    failures: int = 0
    retry_at: float = 0.0

    @property
    def available(self) -> bool:
        """Whether it is loaded and served."""
        return self.state is VersionState.AVAILABLE

    @property
    def candidate(self) -> bool:
        """Whether it is loaded, or could be: its folder is complete and did not fail."""
        if self.files is None:
            return False
        if self.state in (VersionState.AVAILABLE, VersionState.LOADING):
            return True
        return self.settled and (not self.error or self.files != self.failed_files)

    def take_change(self) -> bool:
        """Whether its files have changed since they were last used; then they count as used."""
        changed = self.available and self.settled and self.files not in (None, self.used_files)
        if changed:
            self.used_files = self.files
        return changed

    def retry(self) -> None:
        """Count its files as complete, and forget a failure."""
        self.settled, self.failed_files, self.retry_at = True, None, 0.0
        if self.state in (VersionState.START, VersionState.END):
            self.error = ""
