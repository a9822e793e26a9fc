"""One model's versions: which to load, which to unload, and when. Pure: time is passed in.

Rules, in the order in which they yield:

1. Make before break: a version is unloaded only when every wanted one is there, warm. One that
   cannot be loaded is wanted no longer, so that the next lower one is.
2. A model whose folder is there never loses its last version; one whose folder is gone loses all.
3. A version is loaded once its files were the same in two looks (those of the first look, at
   once), so that a copy under way is left alone. One that failed is tried again only when its
   files have changed or the operator asks, after a pause that doubles with every failure.
4. Wanted are the versions that the policy chooses, those that the operator asked for, and those
   that an alias points to. An alias that points to a version that is not there yet goes on
   pointing to the one before.
5. A model that the operator ordered away has no version, until it, or one of its versions or
   aliases, is ordered, or its folder made anew.
6. The default is the newest version that the policy chooses (a canary that is loaded only for its
   alias is none), or the last default until that is there.

Rejected: unloading first where two versions do not fit into memory, since requests fail meanwhile;
start a worker with the new version and drain the old one instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.errors import InvalidRequest, UnknownModel
from fingerpost.registry.backoff import Backoff
from fingerpost.registry.instance import ModelInfo
from fingerpost.registry.names import check_alias
from fingerpost.worker.models.status import VersionState, VersionStatus
from fingerpost.worker.repository.record import VersionRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fingerpost.worker.repository.policy import VersionSettings

__all__ = ["Lifecycle"]

# The pauses after failures; without jitter, since nobody else loads this worker's models.
_BACKOFF: Final = Backoff(base_s=5.0, cap_s=300.0)


class Lifecycle:
    """See the module. Looks, results and orders come in; `take_load` and `take_unloads` decide.

    Args:
        name: the model's.
        trust_first_scan: the versions of the first scan count as complete; false for a model that
            appears later.
    """

    def __init__(self, name: str, *, trust_first_scan: bool) -> None:
        self._name = name
        self._trust_next_scan = trust_first_scan
        self._settings: VersionSettings | None = None
        self._aliases: dict[str, int] = {}  # as ordered
        self._effective: dict[str, int] = {}  # as served
        self._versions: dict[int, VersionRecord] = {}
        self._default: int | None = None
        self._folder_gone = False
        self._disabled = False
        self._settings_error = ""

    # What happens

    def scanned(
        self, found: Mapping[int, str], settings: VersionSettings | None, error: str = ""
    ) -> None:
        """The model's folder was looked at.

        Args:
            found: each version's fingerprint, which changes with its files.
            settings: what is said of them; None where that cannot be read, which leaves the last,
                or where there was none, loads nothing.
            error: why not.
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
        """The model's folder is gone."""
        self._folder_gone = True
        self._settings_error = ""
        for version, each in list(self._versions.items()):
            each.files = None
            self._forget(version)
        self._update_served()

    def loaded(self, version: int) -> None:
        """It is there, warm."""
        each = self._versions[version]
        each.state, each.error = VersionState.AVAILABLE, ""
        each.failures, each.retry_at = 0, 0.0
        self._update_served()

    def failed(self, version: int, error: str, *, files: str | None, now: float) -> None:
        """It could not be loaded from the files of that fingerprint."""
        each = self._versions[version]
        each.state, each.error, each.failed_files = VersionState.END, error, files
        each.pinned = False
        each.failures += 1
        each.retry_at = now + _BACKOFF.nominal_s(each.failures - 1)
        self._forget(version)
        self._update_served()

    def unloaded(self, version: int) -> None:
        """Its last request has ended, and it is out of memory."""
        self._versions[version].state = VersionState.END
        self._forget(version)
        self._update_served()

    # What the operator orders

    def load(self, version: int) -> None:
        """Load it, whatever the policy says, and try again where it failed.

        Raises:
            UnknownModel: there is no such version.
        """
        each = self._known(version)
        each.pinned, each.withheld = True, False
        each.retry()
        self._disabled = False
        self._update_served()

    def unload(self, version: int) -> None:
        """Do without it, until it is ordered again or its folder was replaced.

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
                f"{self._name}@{version} is the only version there is to serve: load another one "
                "first, or remove the model's folder"
            )
        each.withheld, each.pinned = True, False
        if not self._asked():
            self._versions[max(others)].pinned = True
        self._update_served()

    def disable(self) -> None:
        """Do without the model, whatever stands in its folder."""
        self._disabled = True
        self._update_served()

    def enable(self) -> None:
        """Load what the policy and the aliases say, and try again what failed."""
        self._disabled = False
        for each in self._versions.values():
            each.retry()
        self._update_served()

    def rollback(self) -> int:
        """Do without the default version, and serve the next lower one; its number.

        Aliases that point to the one go to the other.

        Raises:
            InvalidRequest: there is no lower one.
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
        """Point an alias to a version, which is loaded if it is not.

        Raises:
            InvalidName: not a valid alias.
            UnknownModel: there is no such version.
            InvalidRequest: it could not be loaded, or its folder is gone or being copied.
        """
        check_alias(alias)
        each = self._known(version)
        if not each.candidate:
            why = each.error or "its folder is not whole"
            raise InvalidRequest(f"{self._name}@{version} cannot have an alias: {why}")
        each.retry_at = 0.0
        self._aliases[alias] = version
        self._disabled = False
        self._update_served()

    # What is to be done

    def take_load(self, now: float) -> tuple[int, str] | None:
        """The next version to load, newest first, and its files' fingerprint; it counts as begun.

        `loaded` or `failed` ends it.
        """
        for version in sorted(self._wanted(), reverse=True):
            each = self._versions[version]
            idle = each.state in (VersionState.START, VersionState.END)
            if idle and each.files is not None and now >= each.retry_at:
                each.state, each.retry_at = VersionState.LOADING, 0.0
                return version, each.files
        return None

    def take_unloads(self) -> tuple[int, ...]:
        """The versions to unload now, no longer served from here on; `unloaded` ends each."""
        wanted = self._wanted()
        if not all(self._versions[version].available for version in wanted):
            return ()
        leaving = tuple(sorted(self._available() - wanted))
        for version in leaving:
            self._versions[version].state = VersionState.UNLOADING
        self._update_served()
        return leaving

    # What is so

    @property
    def default(self) -> int | None:
        """The version for requests that name none."""
        return self._default

    @property
    def aliases(self) -> Mapping[str, int]:
        """The aliases as served."""
        return self._effective

    @property
    def idle(self) -> bool:
        """No version is being loaded, or waits for it, but for its pause after a failure."""
        wanted = self._wanted()
        return all(
            each.available or each.retry_at
            for version, each in self._versions.items()
            if each.state is VersionState.LOADING or version in wanted
        )

    def state(self, version: int) -> VersionState | None:
        """What a version is doing; None where it is not known."""
        each = self._versions.get(version)
        return each.state if each is not None else None

    def error(self, version: int) -> str:
        """Why a version could not be loaded; empty where it could, or was not tried again yet."""
        each = self._versions.get(version)
        return each.error if each is not None else "its folder is gone"

    @property
    def finished(self) -> bool:
        """The folder is gone, and so are all versions."""
        return self._folder_gone and not self._versions

    def info(self) -> ModelInfo | None:
        """What is told to clients; None while nothing is there."""
        versions = sorted(self._available(), reverse=True)
        if not versions:
            return None
        return ModelInfo(
            name=self._name,
            versions=tuple(map(str, versions)),
            aliases={alias: str(version) for alias, version in sorted(self._effective.items())},
        )

    def statuses(self) -> tuple[VersionStatus, ...]:
        """Every version that is, was or is to be loaded, newest first."""
        wanted = self._wanted()
        return tuple(
            VersionStatus(version=str(version), state=each.state, error=each.error)
            for version, each in sorted(self._versions.items(), reverse=True)
            if version in wanted or each.state is not VersionState.START
        )

    def problems(self) -> tuple[str, ...]:
        """What an operator should know, newest version first."""
        problems = [self._settings_error] if self._settings_error else []
        problems += [
            f"version {version}: {each.error}"
            for version, each in sorted(self._versions.items(), reverse=True)
            if each.error
        ]
        problems += [
            f"alias {alias} points to version {version}, which is not there"
            for alias, version in sorted(self._aliases.items())
            if not self._folder_gone and version not in self._candidates()
        ]
        return tuple(problems)

    # Inside

    def _known(self, version: int) -> VersionRecord:
        each = self._versions.get(version)
        if each is None or each.files is None:
            known = ", ".join(str(v) for v in sorted(self._versions)) or "none"
            raise UnknownModel(f"{self._name} has no version {version}; its folder has: {known}")
        return each

    def _candidates(self) -> set[int]:
        return {version for version, each in self._versions.items() if each.candidate}

    def _allowed(self) -> set[int]:
        """Those that the policy chooses from."""
        return {version for version in self._candidates() if not self._versions[version].withheld}

    def _chosen(self) -> frozenset[int]:
        """Those that the policy chooses."""
        settings = self._settings
        return frozenset() if settings is None else settings.policy.choose(self._allowed())

    def _asked(self) -> set[int]:
        """Those that somebody wants: the policy, the operator, an alias."""
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
        """Point the aliases and the default to what is there now."""
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
