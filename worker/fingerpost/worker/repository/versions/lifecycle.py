"""Decides which versions of one model are loaded and unloaded, and when.

Pure: time is passed in. Rules, the first with the highest precedence:

1. Make before break: a version is unloaded only when every wanted version is loaded and warm. A
   version that cannot be loaded is no longer wanted; the next lower one is wanted instead.
2. A model whose folder exists never loses its last version; one whose folder is gone loses all.
3. A version is loaded once two scans in a row found the same files, so that a copy under way is
   left alone; what the first scan finds is loaded at once. A version that failed is tried again
   only when its files have changed or the operator asks, after a pause that doubles with every
   failure.
4. Wanted are the versions that the policy chooses, those that the operator loads, and those that
   an alias points to. Until the version of an alias is loaded, the alias keeps its old target.
5. A model that the operator disabled has no versions, until the model, one of its versions or one
   of its aliases is loaded or set again, or its folder is created anew.
6. The default is the newest version that the policy chooses; until that is loaded, the default
   stays. A canary that is loaded only for its alias is never the default.

Rejected: unloading first where two versions do not fit into memory, because requests fail
meanwhile; start a worker with the new version and drain the old one instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.basics.backoff import Backoff
from fingerpost.errors import InvalidRequest, UnknownModel
from fingerpost.registry.instance import ModelInfo
from fingerpost.registry.names import check_alias
from fingerpost.worker.models.status import VersionState, VersionStatus
from fingerpost.worker.repository.versions.record import VersionRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fingerpost.worker.repository.versions.policy import VersionSettings

__all__ = ["Lifecycle"]

# The pauses after failures; without jitter, since nobody else loads this worker's models.
_BACKOFF: Final = Backoff(base_s=5.0, cap_s=300.0)


class Lifecycle:
    """The versions of one model, and what to do with them next.

    The methods of the first two groups report events and the operator's requests; `take_load` and
    `take_unloads` return what to do.

    Args:
        name: the model's name.
        trust_first_scan: the versions of the first scan count as complete; false for a model that
            appears later.
    """

    def __init__(self, name: str, *, trust_first_scan: bool) -> None:
        self._name = name
        self._trust_next_scan = trust_first_scan
        self._settings: VersionSettings | None = None
        self._aliases: dict[str, int] = {}  # as set
        self._effective: dict[str, int] = {}  # as served
        self._versions: dict[int, VersionRecord] = {}
        self._default: int | None = None
        self._folder_gone = False
        self._disabled = False
        self._settings_error = ""

    # Events

    def scanned(
        self, found: Mapping[int, str], settings: VersionSettings | None, error: str = ""
    ) -> None:
        """Report a scan of the model's folder.

        Args:
            found: the fingerprint of each version's files, which changes with them.
            settings: the policy and the aliases; None where they cannot be read, which keeps the
                last ones, or where there are none, loads nothing.
            error: why they cannot be read.
        """
        self._folder_gone = False
        self._settings_error = error
        if settings is not None and settings != self._settings:
            self._settings = settings
            self._aliases = dict(settings.aliases)
        for version, files in found.items():
            each = self._versions.get(version)
            if each is None:
                self._versions[version] = VersionRecord(files=files, settled=self._trust_next_scan)
            else:
                each.settled = each.files == files
                each.files = files
        for version, each in list(self._versions.items()):
            if version not in found:
                each.files = None
                self._forget(version)
        self._trust_next_scan = False
        self._update_served()

    def removed(self) -> None:
        """Report that the model's folder is gone."""
        self._folder_gone = True
        self._settings_error = ""
        for version, each in list(self._versions.items()):
            each.files = None
            self._forget(version)
        self._update_served()

    def loaded(self, version: int) -> None:
        """Report that a version is loaded and warm."""
        each = self._versions[version]
        each.state, each.error = VersionState.AVAILABLE, ""
        each.failures, each.retry_at = 0, 0.0
        self._update_served()

    def failed(self, version: int, error: str, *, files: str | None, now: float) -> None:
        """Report that a version could not be loaded from the files with that fingerprint."""
        each = self._versions[version]
        each.state, each.error, each.failed_files = VersionState.END, error, files
        each.pinned = False
        each.failures += 1
        each.retry_at = now + _BACKOFF.nominal_s(each.failures - 1)
        self._forget(version)
        self._update_served()

    def relabelled(self, version: int, error: str) -> None:
        """Report that the labels of a loaded version were read again; `error` is why not."""
        each = self._versions.get(version)
        if each is not None and each.available:
            each.error = error

    def unloaded(self, version: int) -> None:
        """Report that the last request of a version has ended and that it is out of memory."""
        self._versions[version].state = VersionState.END
        self._forget(version)
        self._update_served()

    # Requests of the operator

    def load(self, version: int) -> None:
        """Load a version, whatever the policy says; try again if it failed before.

        Raises:
            UnknownModel: there is no such version.
        """
        each = self._known(version)
        each.pinned, each.withheld = True, False
        each.retry()
        self._disabled = False
        self._update_served()

    def unload(self, version: int) -> None:
        """Unload a version, until it is loaded again by request or its folder was replaced.

        Raises:
            UnknownModel: there is no such version.
            InvalidRequest: an alias points to it, or it is the only one.
        """
        each = self._known(version)
        for alias, target in (*self._aliases.items(), *self._effective.items()):
            if target == version:
                raise InvalidRequest(
                    f"alias {alias!r} points to {self._name}@{version}: move the alias first"
                )
        others = self._allowed() - {version}
        if not others:
            raise InvalidRequest(
                f"{self._name}@{version} is the only version that can be served: load another one "
                "first, or remove the model's folder"
            )
        each.withheld, each.pinned = True, False
        if not self._asked():
            self._versions[max(others)].pinned = True
        self._update_served()

    def disable(self) -> None:
        """Unload the model, whatever is in its folder."""
        self._disabled = True
        self._update_served()

    def enable(self) -> None:
        """Load what the policy and the aliases choose; try again what failed before."""
        self._disabled = False
        for each in self._versions.values():
            each.retry()
        self._update_served()

    def rollback(self) -> int:
        """Unload the default version, and serve the next lower one; return its number.

        Aliases that point to the first are moved to the second.

        Raises:
            InvalidRequest: there is no lower version.
        """
        if self._default is None:
            raise InvalidRequest(f"no version of {self._name} is loaded")
        current = self._default
        lower = {version for version in self._allowed() if version < current}
        if not lower:
            raise InvalidRequest(f"there is no version of {self._name} below {current}")
        target = max(lower)
        self._versions[current].withheld = True
        self._versions[current].pinned = False
        for alias, version in self._aliases.items():
            if version == current:
                self._aliases[alias] = target
        self._versions[target].retry_at = 0.0
        if target not in self._chosen():
            self._versions[target].pinned = True
        self._update_served()
        return target

    def set_alias(self, alias: str, version: int) -> None:
        """Point an alias to a version, and load that version if it is not loaded.

        Raises:
            InvalidName: not a valid alias.
            UnknownModel: there is no such version.
            InvalidRequest: it could not be loaded, or its folder is gone or being copied.
        """
        check_alias(alias)
        each = self._known(version)
        if not each.candidate:
            why = each.error or "its folder is not complete"
            raise InvalidRequest(f"{self._name}@{version} cannot have an alias: {why}")
        each.retry_at = 0.0
        self._aliases[alias] = version
        self._disabled = False
        self._update_served()

    # Actions

    def take_load(self, now: float) -> tuple[int, str] | None:
        """The next version to load, newest first, and the fingerprint of its files.

        The version counts as being loaded until `loaded` or `failed` is called.
        """
        for version in sorted(self._wanted(), reverse=True):
            each = self._versions[version]
            idle = each.state in (VersionState.START, VersionState.END)
            if idle and each.files is not None and now >= each.retry_at:
                each.state, each.retry_at = VersionState.LOADING, 0.0
                each.used_files = each.files
                return version, each.files
        return None

    def take_unloads(self) -> tuple[int, ...]:
        """The versions to unload now, no longer served from here on; `unloaded` reports the end."""
        wanted = self._wanted()
        if not all(self._versions[version].available for version in wanted):
            return ()
        leaving = tuple(sorted(self._available() - wanted))
        for version in leaving:
            each = self._versions[version]
            each.state, each.error = VersionState.UNLOADING, ""
        self._update_served()
        return leaving

    def take_changes(self) -> tuple[int, ...]:
        """The loaded versions whose files have changed; `relabelled` reports what came of it."""
        return tuple(version for version, each in self._versions.items() if each.take_change())

    # State

    @property
    def default(self) -> int | None:
        """The version for requests that name none; None where nothing is loaded."""
        return self._default

    @property
    def aliases(self) -> Mapping[str, int]:
        """The aliases as served: only to loaded versions."""
        return self._effective

    @property
    def idle(self) -> bool:
        """Whether no version is being loaded or waits, other than for a pause after a failure."""
        wanted = self._wanted()
        return all(
            each.available or each.retry_at
            for version, each in self._versions.items()
            if each.state is VersionState.LOADING or version in wanted
        )

    def state(self, version: int) -> VersionState | None:
        """The state of a version; None where the version is not known."""
        each = self._versions.get(version)
        return each.state if each is not None else None

    def error(self, version: int) -> str:
        """Why a version or its labels could not be loaded; empty if not so, or to be retried."""
        each = self._versions.get(version)
        return each.error if each is not None else "its folder is gone"

    @property
    def finished(self) -> bool:
        """Whether the folder is gone and all versions are unloaded."""
        return self._folder_gone and not self._versions

    def info(self) -> ModelInfo | None:
        """What clients are told; None while no version is loaded."""
        versions = sorted(self._available(), reverse=True)
        if not versions:
            return None
        return ModelInfo(
            name=self._name,
            versions=tuple(map(str, versions)),
            aliases={alias: str(version) for alias, version in sorted(self._effective.items())},
        )

    def statuses(self) -> tuple[VersionStatus, ...]:
        """The status of every version that is, was or will be loaded, newest first."""
        wanted = self._wanted()
        return tuple(
            VersionStatus(version=str(version), state=each.state, error=each.error)
            for version, each in sorted(self._versions.items(), reverse=True)
            if version in wanted or each.state is not VersionState.START
        )

    def problems(self) -> tuple[str, ...]:
        """What is wrong, for the operator, newest version first."""
        problems = [self._settings_error] if self._settings_error else []
        problems += [
            f"version {version}: {each.error}"
            for version, each in sorted(self._versions.items(), reverse=True)
            if each.error
        ]
        problems += [
            f"alias {alias} points to version {version}, which does not exist"
            for alias, version in sorted(self._aliases.items())
            if not self._folder_gone and version not in self._candidates()
        ]
        return tuple(problems)

    # Helpers

    def _known(self, version: int) -> VersionRecord:
        each = self._versions.get(version)
        if each is None or each.files is None:
            known = ", ".join(str(v) for v in sorted(self._versions)) or "none"
            raise UnknownModel(f"{self._name} has no version {version}; its folder has: {known}")
        return each

    def _candidates(self) -> set[int]:
        return {version for version, each in self._versions.items() if each.candidate}

    def _allowed(self) -> set[int]:
        """The versions that the policy chooses from."""
        return {version for version in self._candidates() if not self._versions[version].withheld}

    def _chosen(self) -> frozenset[int]:
        """The versions that the policy chooses."""
        settings = self._settings
        return frozenset() if settings is None else settings.policy.choose(self._allowed())

    def _asked(self) -> set[int]:
        """The versions that the policy, the operator or an alias wants."""
        candidates = self._candidates()
        pinned = {version for version in candidates if self._versions[version].pinned}
        aliased = candidates & set(self._aliases.values())
        return {*self._chosen(), *pinned, *aliased, *self._effective.values()}

    def _available(self) -> set[int]:
        return {version for version, each in self._versions.items() if each.available}

    def _wanted(self) -> set[int]:
        if self._folder_gone or self._disabled:
            return set()
        return self._asked() or self._available()

    def _update_served(self) -> None:
        """Point the aliases and the default to versions that are loaded now."""
        available = self._available()
        effective = {}
        for alias, version in self._aliases.items():
            if version in available:
                effective[alias] = version
            elif (before := self._effective.get(alias, -1)) in available:
                effective[alias] = before
        self._effective = effective
        chosen = self._chosen() & available
        if chosen:
            self._default = max(chosen)
        elif self._default not in available:
            self._default = max(available, default=None)

    def _forget(self, version: int) -> None:
        """Drop a version that is neither on disk nor in memory."""
        each = self._versions[version]
        if each.files is None and each.state in (VersionState.START, VersionState.END):
            del self._versions[version]
